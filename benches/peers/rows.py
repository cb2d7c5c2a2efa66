"""effigy on many rows and on many files: three row stages of a provider, also beside DataChain, and taking in a tree beside
b3sum.

The provider is the one of the tests, whose stages `numbers` and `add` do next to nothing: what is measured is the engine.
Knows nothing of the graph of bench.py.
"""
import json
import os
import shutil
import time

from measure import find, measure, median

RECIPE = """recipe: r
providers: ["{provider}"]
stages:
  src: {{ stage: numbers, count: {count}, changed: {changed} }}
  a: {{ stage: add, from: src, amount: 1 }}
  b: {{ stage: add, from: a, amount: 2 }}
  c: {{ stage: add, from: b, amount: 3 }}
"""


def counts(folder):
    """What the last line of `effigy run --json` says, from the log that measure() leaves."""
    with open(folder.parent / "last.log") as file:
        lines = [line for line in file.read().splitlines() if line.startswith("{")]
    return json.loads(lines[-1])


def many(work, count, changes, reps, effigy, provider):
    """Three stages over so many rows: cold, nothing to do, some rows changed."""
    folder = work / f"rows-{count}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [effigy, "run", "r.yaml", "--json", "--quiet"]
    results = []

    def go(what, changed, expected):
        text = RECIPE.format(provider=provider, count=count, changed=changed)
        (folder / "r.yaml").write_text(text)
        runs = [measure(command, folder, 1800) for _ in range(reps if what == "noop" else 1)]
        said = counts(folder)
        if (said["executed"], said["failed"]) != (expected, 0):
            print(f"! {count} rows, {what}: {said}, expected {expected} executed", flush=True)
        results.append(dict(rows=count, probe=what, executed=said["executed"], **median(runs)))

    go("cold", 0, 3 * count + 1)
    go("noop", 0, 0)
    # the source is one unit more
    go("changed", changes, 3 * changes + 1)
    shutil.rmtree(folder)
    return results


def tell(count, results):
    cold, noop, changed = results
    each = cold["cpu"] / (3 * count) * 1e6
    print(f"| {count:,} | {cold['cpu']:.2f} | {each:.1f} | {noop['cpu']:.2f} | {noop['rss']:.0f} |", end="")
    print(f" {changed['cpu']:.2f} | {changed['executed'] - 1} |", flush=True)


def datachain(work, count, changes, reps, python):
    """The same in DataChain: three functions over a dataset, `delta=True`."""
    folder = work / f"datachain-{count}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "datachain_rows.py")
    results = []

    def go(what, expected):
        runs = [measure([python, script, "run"], folder, 1800) for _ in range(reps if what == "noop" else 1)]
        with open(work / "last.log") as file:
            called = file.read().split()[-3:]
        if called != [str(expected)] * 3:
            print(f"! DataChain, {count} rows, {what}: called {called}, expected {expected} each", flush=True)
        results.append(dict(engine="datachain", rows=count, probe=what, executed=3 * expected, **median(runs)))

    measure([python, script, "source", str(count), "0"], folder, 1800)
    go("cold", count)
    go("noop", 0)
    measure([python, script, "source", str(count), str(changes)], folder, 1800)
    go("changed", changes)
    shutil.rmtree(folder)
    return results


def beside_datachain(work, counts, reps, effigy, provider):
    """Both, one row in a hundred changed."""
    program = find("datachain")
    if not program:
        print("! SKIPPED: DataChain is not installed (benches/peers/install.sh)", flush=True)
        return []
    python = os.path.join(os.path.dirname(os.path.realpath(program)), "python")
    print("\n### Three functions over rows, beside DataChain's `delta=True`; 1 % of the rows changed: cpu seconds\n")
    print("| rows | | effigy | DataChain | DataChain / effigy |\n|---|---|---|---|---|", flush=True)
    results = []
    for count in counts:
        ours = many(work, count, count // 100, reps, effigy, provider)
        theirs = datachain(work, count, count // 100, reps, python)
        for one, other in zip(ours, theirs):
            print(f"| {count:,} | {one['probe']} | {one['cpu']:.3f} | {other['cpu']:.3f} |", end="")
            print(f" {other['cpu'] / one['cpu']:.0f} |", flush=True)
        results += ours + theirs
    return results


def tree(work, files, size, reps, effigy):
    """A tree of files: taken in for the first time beside b3sum, and again beside find."""
    folder = work / "tree"
    shutil.rmtree(folder, ignore_errors=True)
    for i in range(files):
        path = folder / f"tree/{i // 100}/{i}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(4096) * (size // 4096))
    (folder / "r.yaml").write_text("recipe: r\nstages:\n  src: { files: 'tree/**/*.bin' }\n")
    time.sleep(0.1)
    run = [effigy, "run", "r.yaml", "--quiet"]

    def take_in():
        shutil.rmtree(folder / ".effigy", ignore_errors=True)
        return measure(run, folder)

    def repeat(command):
        return median([measure(command, folder) for _ in range(reps)])

    measure(["sh", "-c", "cat tree/*/*.bin > /dev/null"], folder)  # all from memory, for all
    ours = median([take_in() for _ in range(reps)])
    again = repeat(run)
    b3sum = find("b3sum")
    if not b3sum:
        print("! SKIPPED: b3sum is not installed (benches/peers/install.sh)", flush=True)
    theirs = repeat(["sh", "-c", f"find tree -name '*.bin' -print0 | xargs -0 {b3sum}"]) if b3sum else None
    stat = repeat(["find", "tree", "-name", "*.bin", "-printf", "%s %T@ %i %p\\n"])
    shutil.rmtree(folder)
    print(f"\n### {files:,} files of {size // 1024} KiB: cpu seconds\n")
    print("| | effigy | peer | ratio |\n|---|---|---|---|")
    if theirs:
        ratio = ours["cpu"] / theirs["cpu"]
        print(f"| taken in, beside b3sum | {ours['cpu']:.2f} | {theirs['cpu']:.2f} | {ratio:.2f} |")
    print(f"| nothing changed, beside find + stat | {again['cpu']:.3f} | {stat['cpu']:.3f} | {again['cpu'] / stat['cpu']:.1f} |")
    figures = {"take_in": ours, "again": again, "b3sum": theirs, "find": stat}
    return [dict(tree=files, probe=name, **figure) for name, figure in figures.items() if figure]


def run(work, rows, reps):
    """All of it; prints tables and gives back the figures."""
    effigy = find("effigy")
    if not effigy:
        print("! SKIPPED: effigy is not built, so no rows and no files")
        return []
    provider = os.path.join(os.path.dirname(os.path.realpath(effigy)), "examples", "test-provider")
    results = []
    if os.path.exists(provider):
        print("\n### Rows through three row stages of a provider: cpu seconds, its worker included\n")
        print("| rows | cold | us per executed row | no-op | no-op MiB | 100 changed | rows run then |")
        print("|---|---|---|---|---|---|---|", flush=True)
        for count in rows:
            found = many(work, count, 100, reps, effigy, provider)
            tell(count, found)
            results += found
        results += beside_datachain(work, [count for count in (10_000, 100_000) if count <= max(rows)], reps, effigy, provider)
    else:
        print("! SKIPPED: the tests' provider is not built (cargo build --workspace --examples)")
    size = int(os.environ.get("BENCH_TREE_MIB", "2048")) * (1 << 20) // 10_000 // 4096 * 4096
    return results + tree(work, 10_000, max(size, 4096), reps, effigy)
