"""The surface of a field on a grid of 256^3: our marching cubes beside scikit-image and PyMCubes, one thread each.

Each program reads the same file. Counts of vertices and faces are compared.
"""
import shutil
import subprocess

from measure import example, find, per_round

SIDE, ROUNDS = 256, 8

PEER = """import numpy, sys
grid = numpy.fromfile(sys.argv[1], dtype="<f4").reshape([int(sys.argv[2])] * 3)
if sys.argv[4] == "skimage":
    from skimage.measure import marching_cubes
    extract = lambda: marching_cubes(grid, 0.0)[:2]
else:
    import mcubes
    extract = lambda: mcubes.marching_cubes(grid, 0.0)
for _ in range(int(sys.argv[3])):
    vertices, faces = extract()
    print(len(vertices), len(faces))
"""


def run(work, reps):
    """All of it; prints a table and gives back the figures."""
    ours, python = example("marching_cubes"), find("cubes-python")
    if not ours:
        print("! SKIPPED: marching cubes; its example is not built (cargo build --workspace --examples)", flush=True)
        return []
    if not python:
        print("! SKIPPED: scikit-image and PyMCubes are not installed (benches/peers/install.sh)", flush=True)
    folder = work / "cubes"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "in").mkdir(parents=True)
    programs = {"ours": lambda rounds, grid: [ours, grid, str(SIDE), str(rounds)]}
    for name in ["skimage", "pymcubes"] if python else []:
        programs[name] = lambda rounds, grid, name=name: [python, "-c", PEER, grid, str(SIDE), str(rounds), name]
    results = []
    print(f"\n### Marching cubes on {SIDE}^3, one thread: cpu ms for a surface\n")
    print("| | field | vertices | faces | cpu ms | ratio of cpu: ours to it |\n|---|---|---|---|---|---|")
    for field in ["sphere", "torus"]:
        grid = str(folder / f"{field}.f32")
        subprocess.run([ours, "make", field, str(SIDE), grid], check=True)
        at = {name: lambda n, command=command: command(n, grid) for name, command in programs.items()}
        figures, counts = per_round(at, ROUNDS, reps, folder)
        for name, figure in figures.items():
            ratio = figures["ours"]["cpu"] / figure["cpu"]
            vertices, faces = map(int, counts[name])
            print(f"| {name} | {field} | {vertices} | {faces} | {1000 * figure['cpu']:.0f} | {ratio:.2f} |", flush=True)
            results.append(dict(field=field, side=SIDE, engine=f"cubes-{name}", vertices=vertices, faces=faces, **figure))
        if len(set(map(tuple, counts.values()))) > 1:
            print(f"! {field}: counts of vertices and faces differ")
    shutil.rmtree(folder)
    return results
