"""Writes this folder: tiny networks of both generations of Stable Diffusion with random weights, in the files that releases come
in, and what diffusers and transformers make of them.
Usage: write.py OUTDIR     (torch 2.13.0, diffusers 0.42.1, transformers 5.23.0, numpy, safetensors; CPU, seconds)"""
import json, os, sys
import torch
from collections import Counter
from diffusers import ControlNetModel, UNet2DConditionModel, UniPCMultistepScheduler
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
OUT = sys.argv[1]
CASES = []
torch.set_num_threads(1)


def case(name, kind, tensors, **config):
    folder = os.path.join(OUT, name)
    os.makedirs(folder, exist_ok=True)
    tolerance = config.pop("tolerance")
    save_file({k: v.contiguous() for k, v in tensors.items()}, os.path.join(folder, "io.safetensors"))
    with open(os.path.join(folder, "meta.json"), "w") as f:
        json.dump({"case": name, "kind": kind, "config": config, "tolerance": tolerance}, f, indent=1)
    CASES.append({"case": name, "kind": kind})
    return folder


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seeded(model, seed):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, p in sorted(model.named_parameters()):
            fan = p[0].numel() if p.dim() > 1 else 1
            p.copy_(torch.randn(p.shape, generator=g) / fan**0.5 if p.dim() > 1 else p + 0.1 * torch.randn(p.shape, generator=g))
    return model.eval()


def byte_symbols():
    """The 256 characters that stand for bytes in vocabularies of this kind, in CLIP's order."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    rest = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(rest)}


def tokenizer_folder(folder, second):
    """A vocabulary in CLIP's layout: bytes, bytes that end a word, merges, the two special tokens."""
    os.makedirs(folder, exist_ok=True)
    table = byte_symbols()
    words = Counter("a photo of a head the head of a man the face of a person an avatar of a person a face it's caf\u00e9".split())
    split = {w: [table[b] for b in w.encode()] for w in words}
    split = {w: s[:-1] + [s[-1] + "</w>"] for w, s in split.items()}
    vocab, merges = [*table.values(), *(s + "</w>" for s in table.values())], []
    for _ in range(40):
        pairs = Counter()
        for w, n in words.items():
            pairs.update({p: n * split[w].count(p[0]) and n for p in zip(split[w], split[w][1:])})
        if not pairs:
            break
        a, b = max(sorted(pairs), key=pairs.get)
        merges.append(f"{a} {b}")
        vocab.append(a + b)
        for w, s in split.items():
            out, i = [], 0
            while i < len(s):
                pair = i + 1 < len(s) and (s[i], s[i + 1]) == (a, b)
                out.append(a + b if pair else s[i])
                i += 2 if pair else 1
            split[w] = out
    vocab += ["<|startoftext|>", "<|endoftext|>"]
    write = lambda name, value: json.dump(value, open(os.path.join(folder, name), "w"))
    write("vocab.json", {token: i for i, token in enumerate(vocab)})
    open(os.path.join(folder, "merges.txt"), "w").write("#version: 0.2\n" + "\n".join(merges) + "\n")
    pad = "!" if second else "<|endoftext|>"
    begin = {"content": "<|startoftext|>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    special = {"bos_token": begin, "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": pad}
    write("special_tokens_map.json", special)
    write("tokenizer_config.json", special | {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer"})
    return len(vocab)


PROMPTS = ["", "a photo of a head", "The  face\tof  A man, it's 2024!!", "na\u00efve CAF\u00c9 \u2014 e\u0301 \U0001F600 ...",
           "an avatar<|endoftext|>of a person", "caf\u00e9s don't x\u0130y"]


def text(name, second, seed):
    folder = os.path.join(OUT, name)
    size = tokenizer_folder(os.path.join(folder, "tokenizer"), second)
    tok = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
    config = CLIPTextConfig(vocab_size=size, hidden_size=32, intermediate_size=48, num_hidden_layers=3 if second else 2,
                            num_attention_heads=4, max_position_embeddings=77, hidden_act="gelu" if second else "quick_gelu",
                            bos_token_id=size - 2, eos_token_id=size - 1, pad_token_id=1)
    model = seeded(CLIPTextModel(config), seed)
    ids = tok(PROMPTS, padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        states = model(ids).last_hidden_state
    # published files have a prefix that newer releases of the library leave out: one case of each
    prefix = "" if second else "text_model."
    state = {prefix + k.removeprefix("text_model."): v.clone() for k, v in model.state_dict().items()}
    place = os.path.join(folder, "text_encoder")
    os.makedirs(place, exist_ok=True)
    json.dump(config.to_dict() | {"model_type": "clip_text_model"}, open(os.path.join(place, "config.json"), "w"), indent=1)
    if second:  # two files and an index
        names = sorted(state)
        parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
        for file, own in parts.items():
            save_file({n: state[n].contiguous() for n in own}, os.path.join(place, file))
        index = {"metadata": {"total_size": 0}, "weight_map": {n: f for f, own in parts.items() for n in own}}
        json.dump(index, open(os.path.join(place, "model.safetensors.index.json"), "w"), indent=1)
    else:  # a checkpoint with the table of positions, as older releases have it
        state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
        torch.save(state, os.path.join(place, "pytorch_model.bin"))
    case(name, "text", {"ids": ids, "states": states}, prompts=PROMPTS, tolerance={"states": {"f32_abs": 2e-5}})


def networks(name, second, seed):
    common = dict(block_out_channels=(8, 16, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=24 if second else 12)
    if second:
        common |= dict(attention_head_dim=[2, 4, 4], use_linear_projection=True)
    else:
        common |= dict(attention_head_dim=4, use_linear_projection=False)
    down = ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")
    unet = seeded(UNet2DConditionModel(sample_size=8, down_block_types=down, up_block_types=(
        "UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"), **common), seed)
    net = seeded(ControlNetModel(down_block_types=down, conditioning_channels=5, conditioning_embedding_out_channels=(4, 8, 8, 12), **common), seed + 1)
    kind = torch.bfloat16 if second else torch.float16
    unet, net = unet.to(kind).float(), net.to(kind).float()  # what is stored is what is run
    sample, ctx, image = normal(1, 2, 4, 10, 8), normal(2, 2, 5, common["cross_attention_dim"]), normal(3, 2, 5, 80, 64)
    t = torch.tensor([3, 871])
    with torch.no_grad():
        plain = unet(sample, t, ctx).sample
        down, mid = net(sample, t, ctx, image, return_dict=False)
        out = unet(sample, t, ctx, down_block_additional_residuals=down, mid_block_additional_residual=mid).sample
    folder = case(name, "networks", {"sample": sample, "t": t, "text": ctx, "image": image, "plain": plain, "mid": mid, "controlled": out},
                  tolerance={"plain": {"f32_abs": 2e-5}, "mid": {"f32_abs": 5e-5}, "controlled": {"f32_abs": 3e-5}})
    if second:
        unet.to(kind).save_pretrained(os.path.join(folder, "unet"), variant="bf16", max_shard_size="100KB")
        net.to(kind).save_pretrained(os.path.join(folder, "controlnet"), variant="bf16")
    else:
        unet.to(kind).save_pretrained(os.path.join(folder, "unet"), variant="fp16")
        net.to(kind).save_pretrained(os.path.join(folder, "controlnet"), safe_serialization=False)


def unipc(name, prediction, spacing, steps, zero):
    config = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                  prediction_type=prediction, timestep_spacing=spacing, steps_offset=1, rescale_betas_zero_snr=zero)
    s = UniPCMultistepScheduler(**config)
    s.set_timesteps(steps)
    x, tensors = normal(9, 1, 4, 6, 5).double(), {}
    tensors["timesteps"], tensors["init"] = s.timesteps.clone(), x.clone()
    s.sigmas = s.sigmas.double()
    for i, t in enumerate(s.timesteps):
        out = torch.tanh(0.7 * x.roll(1, 1) - 0.2 * x) + 0.1 * normal(50 + i, 1, 4, 6, 5).double()
        x = s.step(out, t, x).prev_sample
        tensors[f"output.{i}"], tensors[f"next.{i}"] = out, x.clone()
    # the reference has its tables in f32: 1e-7 of the noise, which a noise prediction divides by a signal of 0.07
    case(name, "unipc", tensors, steps=steps, scheduler=dict(s.config),
         tolerance={"next": {"f64_abs": 1e-4 if prediction == "epsilon" or zero else 2e-5}})


os.makedirs(OUT, exist_ok=True)
text("text_first", False, 11)
text("text_second", True, 12)
networks("networks_first", False, 21)
networks("networks_second", True, 22)
unipc("unipc_v_leading", "v_prediction", "leading", 8, False)
unipc("unipc_v_trailing", "v_prediction", "trailing", 20, False)
unipc("unipc_eps_linspace", "epsilon", "linspace", 10, False)
unipc("unipc_sample_trailing", "sample", "trailing", 5, False)
unipc("unipc_v_trailing_zsnr", "v_prediction", "trailing", 10, True)
unipc("unipc_v_trailing_one", "v_prediction", "trailing", 1, False)
json.dump(CASES, open(os.path.join(OUT, "cases.json"), "w"), indent=1)
