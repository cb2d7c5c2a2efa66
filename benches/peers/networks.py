"""The networks beside diffusers in Python, on the same libtorch and one thread each: a ControlNet that learns and draws with a small U-Net, and, where
asked for, Stable Diffusion 2.1's own sizes (minutes each, up to 12 GB).

Weights are random on both sides; that both have as many parameters is checked, that they
compute the same is what `make parity` checks.
"""
import shutil

from measure import example, find, per_round

# case, rounds, in the size of Stable Diffusion 2.1?
CASES = [
    ("step", 150, False), ("sample", 12, False),
    ("vae_256", 2, True), ("vae_512", 1, True), ("unet", 2, True), ("control_step", 1, True),
]
WHAT = {
    "step": "ControlNet step, batch 4, latents 8 x 8", "sample": "20 DDIM steps with guidance, 64 px", "vae_256": "SD auto-encoder, 256 px to latent",
    "vae_512": "the same, 512 px", "unet": "SD 2.1 U-Net, one pass at 64 x 64", "control_step": "SD 2.1 ControlNet step at 64 x 64",
}

PEER = """import sys, warnings
warnings.filterwarnings("ignore")
import torch, torch.nn.functional as F
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, DDPMScheduler, UNet2DConditionModel
case, rounds = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
torch.manual_seed(0)
SMALL = dict(block_out_channels=(32, 64, 128, 128), attention_head_dim=[2, 4, 8, 8], cross_attention_dim=64)
FULL = dict(block_out_channels=(320, 640, 1280, 1280), attention_head_dim=[5, 10, 20, 20], cross_attention_dim=1024)
NOISE = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction", clip_sample=False)
def build(kind, **sizes):
    # initialised by hand: the usual initialisation of a full-size network takes longer than the work
    with torch.device("meta"):
        net = kind(**sizes)
    net.to_empty(device="cpu")
    with torch.no_grad():
        for name, p in net.named_parameters():
            p.uniform_(-1, 1).mul_((1 / p[0].numel()) ** 0.5) if p.ndim > 1 else p.fill_(1.0 if name.endswith("weight") else 0.0)
    return net
def unet(sizes):
    down, up = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    return build(UNet2DConditionModel, **sizes, layers_per_block=2, use_linear_projection=True, down_block_types=down, up_block_types=up)
def vae(widths):
    down, up = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    return build(AutoencoderKL, block_out_channels=widths, layers_per_block=2, latent_channels=4, down_block_types=down, up_block_types=up).eval()
def control(sizes):
    return build(ControlNetModel, **sizes, layers_per_block=2, use_linear_projection=True, down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",))
def count(*nets):
    return sum(p.numel() for net in nets for p in net.parameters())
def learn(sizes, batch, side):
    u, c, noises = unet(sizes), control(sizes), DDPMScheduler(**NOISE)
    parameters = count(u, c)
    u.requires_grad_(False).eval()
    c.train()
    optimiser = torch.optim.AdamW(c.parameters(), lr=1e-5)
    latents, condition = torch.randn(batch, 4, side, side), torch.randn(batch, 3, 8 * side, 8 * side)
    text = torch.randn(batch, 77, sizes["cross_attention_dim"])
    for _ in range(rounds):
        noise, t = torch.randn_like(latents), torch.randint(0, 1000, (batch,))
        x = noises.add_noise(latents, noise, t)
        down, mid = c(x, t, text, condition, return_dict=False)
        out = u(x, t, text, down_block_additional_residuals=down, mid_block_additional_residual=mid).sample
        loss = F.mse_loss(out, noises.get_velocity(latents, noise, t))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(c.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        last = float(loss)
    return parameters, last
def sample():
    u, c, v = unet(SMALL).eval(), control(SMALL).eval(), vae((32, 64, 128, 128))
    steps = DDIMScheduler(**NOISE, steps_offset=1, set_alpha_to_one=False)
    text, condition = torch.randn(2, 77, 64), torch.randn(1, 3, 64, 64).repeat(2, 1, 1, 1)
    for _ in range(rounds):
        steps.set_timesteps(20)
        x = torch.randn(1, 4, 8, 8)
        for t in steps.timesteps:
            two = torch.cat([x, x])
            down, mid = c(two, t, text, condition, return_dict=False)
            a, b = u(two, t, text, down_block_additional_residuals=down, mid_block_additional_residual=mid).sample.chunk(2)
            x = steps.step(a + 7.5 * (b - a), t, x).prev_sample
        last = float(v.decode(x / 0.18215).sample.abs().mean())
    return count(u, c, v), last
def encode(side):
    v = vae((128, 256, 512, 512))
    image = torch.rand(1, 3, side, side) * 2 - 1
    for _ in range(rounds):
        last = float(v.encode(image).latent_dist.mean.abs().mean())
    return count(v), last
def once():
    u = unet(FULL).eval()
    x, text = torch.randn(1, 4, 64, 64), torch.randn(1, 77, 1024)
    for _ in range(rounds):
        last = float(u(x, torch.tensor([500]), text).sample.abs().mean())
    return count(u), last
if case in ("step", "control_step"):
    print(*learn(SMALL, 4, 8) if case == "step" else learn(FULL, 1, 64), torch.__version__)
else:
    with torch.no_grad():
        print(*{"sample": sample, "vae_256": lambda: encode(256), "vae_512": lambda: encode(512), "unet": once}[case](), torch.__version__)
"""


def run(work, reps, full_size):
    """All of it; prints a table and gives back the figures."""
    ours = example("run_networks")
    if not ours:
        print("! SKIPPED: networks; their example is not built (cargo build --workspace --examples)", flush=True)
        return []
    python = find("networks-python")
    if not python:
        print("! SKIPPED: diffusers is not installed (benches/peers/install.sh)", flush=True)
    folder = work / "networks"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "in").mkdir(parents=True)
    results = []
    print("\n### Networks beside diffusers, one thread: cpu seconds and peak memory of a round\n")
    print("| case | | parameters | cpu s | GB | ratio of cpu: ours to it |\n|---|---|---|---|---|---|")
    for case, rounds, full in CASES:
        if full and not full_size:
            continue
        programs = {"ours": lambda n: [ours, case, str(n)]}
        if python:
            programs["diffusers"] = lambda n: [python, "-c", PEER, case, str(n)]
        figures, said = per_round(programs, rounds, 1 if full else reps, folder)
        for name, figure in figures.items():
            label = name if name == "ours" else f"diffusers on torch {said[name][-1]}"
            ratio = figures["ours"]["cpu"] / figure["cpu"]
            print(f"| {WHAT[case]} | {label} | {said[name][0]} | {figure['cpu']:.3f} | {figure['rss'] / 1024:.2f} | {ratio:.2f} |", flush=True)
            results.append(dict(case=case, parameters=int(said[name][0]), engine=f"networks-{name}", **figure))
        if len({words[0] for words in said.values()}) > 1:
            print(f"! {case}: the networks are not the same")
    shutil.rmtree(folder)
    return results
