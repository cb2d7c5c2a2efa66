"""Writes the diffusion cases of a folder like this one: `write_diffusion.py DIR VARIANT`, with torch, diffusers and safetensors.

Networks of other shapes than those that lie here, each with what the others lack: `steep` (two levels, 1x1 projections, one head count, sides that do not
halve evenly, 73 condition channels), `plain` (a first level without attention, two transformer blocks each, sines before cosines, noise prediction),
`wide` (four levels, one residual block each, heads by level, a lower auto-encoder without attention, other scales). Weights are random; README.md
says what each tensor is and how far ours may be off. `make parity GOLDEN=DIR` runs them.
"""
import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from safetensors.torch import save_file

CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
VARIANTS = {
    "steep": dict(
        unet=dict(block_out_channels=(8, 16), down_block_types=(CROSS, PLAIN), layers_per_block=2, attention_head_dim=2, cross_attention_dim=12, norm_num_groups=4),
        control=dict(conditioning_channels=73, conditioning_embedding_out_channels=(4, 8, 8)),
        vae=dict(block_out_channels=(8, 8, 12), layers_per_block=2, norm_num_groups=4, scaling_factor=0.31),
        latent=(9, 14), schedule=dict(prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True), tokens=5, batch=1,
    ),
    "plain": dict(
        unet=dict(block_out_channels=(8, 8, 16), down_block_types=(PLAIN, CROSS, CROSS), layers_per_block=1, attention_head_dim=2, cross_attention_dim=10,
                  norm_num_groups=4, use_linear_projection=True, transformer_layers_per_block=2, flip_sin_to_cos=False, freq_shift=1),
        control=dict(conditioning_channels=1, conditioning_embedding_out_channels=(4, 8, 8, 12)),
        vae=dict(block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=4),
        latent=(4, 8), schedule=dict(prediction_type="epsilon"), tokens=20, batch=3,
    ),
    "wide": dict(
        unet=dict(block_out_channels=(8, 12, 12, 16), down_block_types=(CROSS, CROSS, CROSS, PLAIN), layers_per_block=1, attention_head_dim=(1, 2, 3, 4),
                  cross_attention_dim=8, norm_num_groups=4, use_linear_projection=True),
        control=dict(conditioning_channels=41, conditioning_embedding_out_channels=(4, 8)),
        vae=dict(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=8, mid_block_add_attention=False, scaling_factor=1.7),
        latent=(16, 24), schedule=dict(prediction_type="v_prediction"), tokens=3, batch=2,
    ),
}
NOISE = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1)


def loud(net, generator):
    """Random numbers everywhere, zero convolutions and norms too: what is silent hides mistakes."""
    with torch.no_grad():
        for p in net.parameters():
            spread = (1.5 / p[0].numel()) ** 0.5 if p.ndim > 1 else 0.1
            p.copy_(torch.randn(p.shape, generator=generator) * spread)
        for name, p in net.named_parameters():
            if "norm" in name and name.endswith("weight"):
                p.add_(1.0)
    return net.eval()


def build(v, generator):
    up = tuple(("CrossAttnUpBlock2D" if kind == CROSS else "UpBlock2D") for kind in reversed(v["unet"]["down_block_types"]))
    unet = loud(UNet2DConditionModel(**v["unet"], up_block_types=up), generator)
    shared = {k: value for k, value in v["unet"].items()}
    control = loud(ControlNetModel(**shared, **v["control"]), generator)
    levels = len(v["vae"]["block_out_channels"])
    kinds = dict(down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels)
    return unet, control, loud(AutoencoderKL(**v["vae"], **kinds, latent_channels=4), generator)


def unet_case(v, unet, control, draw):
    b, (h, w) = v["batch"], v["latent"]
    scale = 2 ** (len(v["control"]["conditioning_embedding_out_channels"]) - 1)
    io = dict(sample=draw(b, 4, h, w), encoder_hidden_states=draw(b, v["tokens"], v["unet"]["cross_attention_dim"]),
              controlnet_cond=draw(b, v["control"]["conditioning_channels"], scale * h, scale * w), timesteps=torch.tensor([999, 3, 481][:b]))
    seen = {}
    names = ["time_proj", "time_embedding", "mid_block"] + [f"down_blocks.{i}" for i in range(len(unet.down_blocks))] + [f"up_blocks.{i}" for i in range(len(unet.up_blocks))]

    def note(name):
        def hook(_, __, out):  # a hook that gives something back replaces the output
            seen[name] = out[0] if isinstance(out, tuple) else out
        return hook

    hooks = [unet.get_submodule(name).register_forward_hook(note(name)) for name in names]
    with torch.no_grad():
        io["out_plain"] = unet(io["sample"], io["timesteps"], io["encoder_hidden_states"]).sample
        [hook.remove() for hook in hooks]
        down, mid = control(io["sample"], io["timesteps"], io["encoder_hidden_states"], io["controlnet_cond"], 0.7, return_dict=False)
        io["out_controlled"] = unet(io["sample"], io["timesteps"], io["encoder_hidden_states"], down_block_additional_residuals=down, mid_block_additional_residual=mid).sample
    io.update({f"inter.{name}": x for name, x in seen.items()}, cn_mid=mid, **{f"cn_down.{i}": x for i, x in enumerate(down)})
    return io


def vae_case(v, vae, draw):
    scale = 2 ** (len(v["vae"]["block_out_channels"]) - 1)
    h, w = v["latent"]
    io = dict(image=draw(1, 3, scale * h, scale * w).clamp(-1, 1), noise=draw(1, 4, h, w))
    factor = vae.config.scaling_factor
    with torch.no_grad():
        posterior = vae.encode(io["image"]).latent_dist
        io.update(mean=posterior.mean, logvar=posterior.logvar)
        io["latent_scaled"] = (posterior.mean + torch.exp(posterior.logvar / 2) * io["noise"]) * factor
        io["decoded"] = vae.decode(io["latent_scaled"] / factor).sample
    return io


def pipeline_case(v, unet, control, vae, draw):
    steps = DDIMScheduler(**NOISE, **v["schedule"], set_alpha_to_one=False)
    steps.set_timesteps(6)
    h, w = v["latent"]
    scale = 2 ** (len(v["control"]["conditioning_embedding_out_channels"]) - 1)
    io = dict(init=draw(1, 4, h, w), ctx_uncond_cond=draw(2, v["tokens"], v["unet"]["cross_attention_dim"]), timesteps=steps.timesteps.clone(),
              controlnet_cond=draw(1, v["control"]["conditioning_channels"], scale * h, scale * w))
    x = io["init"]
    with torch.no_grad():
        for i, t in enumerate(steps.timesteps):
            both = torch.cat([x, x])
            down, mid = control(both, t, io["ctx_uncond_cond"], io["controlnet_cond"].repeat(2, 1, 1, 1), return_dict=False)
            a, b = unet(both, t, io["ctx_uncond_cond"], down_block_additional_residuals=down, mid_block_additional_residual=mid).sample.chunk(2)
            x = steps.step(a + 3.0 * (b - a), t, x).prev_sample
            io[f"latent.{i}"] = x
        io["image"] = vae.decode(x / vae.config.scaling_factor).sample
    return io, steps


def train_case(v, unet, control, draw):
    noises = DDPMScheduler(**NOISE, prediction_type="v_prediction")
    b, (h, w) = v["batch"], v["latent"]
    scale = 2 ** (len(v["control"]["conditioning_embedding_out_channels"]) - 1)
    io = dict(latents=draw(b, 4, h, w), noise=draw(b, 4, h, w), timesteps=torch.tensor([17, 512, 940][:b]),
              encoder_hidden_states=draw(b, v["tokens"], v["unet"]["cross_attention_dim"]), controlnet_cond=draw(b, v["control"]["conditioning_channels"], scale * h, scale * w))
    io["noisy"] = noises.add_noise(io["latents"], io["noise"], io["timesteps"])
    io["target_v"] = noises.get_velocity(io["latents"], io["noise"], io["timesteps"])
    about = dict(name="AdamW", lr=1e-3, betas=[0.9, 0.999], eps=1e-8, weight_decay=0.01, clip=1.0)
    unet.requires_grad_(False)
    optimiser = torch.optim.AdamW(control.parameters(), lr=about["lr"], betas=about["betas"], eps=about["eps"], weight_decay=about["weight_decay"])
    condition = io["controlnet_cond"].clone().requires_grad_(True)
    losses, norms, each = [], [], {}
    for step in range(5):
        down, mid = control(io["noisy"], io["timesteps"], io["encoder_hidden_states"], condition, return_dict=False)
        out = unet(io["noisy"], io["timesteps"], io["encoder_hidden_states"], down_block_additional_residuals=down, mid_block_additional_residual=mid).sample
        loss = F.mse_loss(out, io["target_v"])
        optimiser.zero_grad()
        loss.backward()
        if step == 0:
            named = dict(control.named_parameters())
            each = {name: float(p.grad.norm()) for name, p in named.items()}
            shown = ["conv_in.weight", "controlnet_mid_block.weight", "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"]
            io.update({f"grad.{name}": named[name].grad.clone() for name in shown}, pred=out.detach(), grad_controlnet_cond=condition.grad.clone())
        norms.append(float(torch.nn.utils.clip_grad_norm_(control.parameters(), about["clip"])))
        optimiser.step()
        losses.append(float(loss.detach()))
        if step == 0:
            io.update({f"after1.{name}": named[name].detach().clone() for name in shown + ["controlnet_cond_embedding.conv_out.bias"]})
    return io, dict(optimiser=about, f32=dict(losses=losses, grad_norm_before_clip=norms, controlnet_grad_norms=each))


def main():
    folder, name = Path(sys.argv[1]), sys.argv[2]
    v = VARIANTS[name]
    generator = torch.Generator().manual_seed(len(name) * 1000 + ord(name[0]))
    draw = lambda *shape: torch.randn(shape, generator=generator)
    unet, control, vae = build(v, generator)
    write = lambda file, io: save_file({k: x.detach().clone().contiguous() for k, x in io.items()}, folder / file)
    folder.mkdir(parents=True, exist_ok=True)
    for part, net in dict(unet=unet, controlnet=control, vae=vae).items():
        net.save_pretrained(folder / "models" / part)
    write("unet.safetensors", unet_case(v, unet, control, draw))
    write("vae.safetensors", vae_case(v, vae, draw))
    io, steps = pipeline_case(v, unet, control, vae, draw)
    write("pipeline.safetensors", io)
    steps.save_pretrained(folder / "models" / "scheduler")
    io, about = train_case(v, unet, control, draw)
    write("train_step.safetensors", io)
    (folder / "train_step.json").write_text(json.dumps(about, indent=1) + "\n")


main()
