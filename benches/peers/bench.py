#!/usr/bin/env python3
"""effigy beside its peers on one synthetic graph. Standard library only; what is not installed is skipped, loudly.

A graph of about N units, each one tiny shell command:

    in/i.txt --a_i--> a --b_i--> b        (i in 0..W)   fan-out
    100 x b --g_j--> g ; all g --out--> out             fan-in

a_i copies only the first line of its input, so a second line re-runs a_i and leaves its output equal (early cutoff). Every
command appends its name to ran.log: what ran is counted from there, and not from what anybody says of himself.

The seven probes, in this order, in one folder:

    cold    nothing built                          must run N
    noop    nothing changed (median of --reps)     must run 0
    touch   one input touched, same bytes          could run 0
    cutoff  a second line appended to it           could run 1
    change  its first line rewritten               must run 4 (a7 b7 g0 out)
    revert  back to its first content              could run 0 (from a cache)
    wiped   all outputs deleted, the cache kept    could run 0 (from a cache)

effigy takes part in two forms: `effigy-stages`, one YAML stage per unit, and `effigy-rows`, four stages over a manifest of
rows. `bare` runs the same commands by a shell, one after the other: what they cost themselves.

The machine may be busy: cpu seconds of the whole process tree are compared, never wall time.

    bench.py [--engine NAME ...] [--n 100 1000 10000] [--work DIR] [--reps 3] [--json FILE] [--skip-rows] [--skip-graph] [--skip-frames]
             [--skip-cubes] [--skip-raster] [--skip-scores] [--skip-networks] [--full-size]
"""
import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path

import frames
import marching_cubes
import networks
import raster
import rows
import scores
from engines import ENGINES, stages
from measure import measure, median

PROBES = ["cold", "noop", "touch", "cutoff", "change", "revert", "wiped"]
# larger graphs take these peers minutes of cpu per probe
LARGEST = {"snakemake": 1000, "redun": 1000, "dvc": 100}


def ran(folder):
    """How many commands have run since the last call."""
    log = folder / "ran.log"
    count = len(log.read_text().split())
    log.write_text("")
    return count


def probe(name, n, work, reps, limit):
    """One engine through the probes: a list of {engine, n, probe, ran, wall, cpu, rss, rc}."""
    engine = ENGINES[name]
    folder = work / f"{name}-{n}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    engine.inputs(folder, n)
    engine.write(folder, n)
    (folder / "ran.log").write_text("")
    total = sum(1 for _ in stages(n))
    seventh = folder / engine.input(7)
    results = []

    def record(what, figures, count):
        results.append(dict(engine=name, n=n, units=total, probe=what, ran=count, **figures))
        print(f"  {name} {n} {what}: ran {count:g}, cpu {figures['cpu']:.3f} s, {figures['rss']:.0f} MiB", flush=True)

    def go(what):
        figures = measure(engine.command(), folder, limit)
        record(what, figures, ran(folder))
        return figures

    time.sleep(0.1)  # inputs older than the clock's grain, as they are in a user's life
    cold = go("cold")
    if cold["rc"] != 0 or results[-1]["ran"] != total:
        print(f"! {name} {n}: cold run ended with {cold['rc']}, {results[-1]['ran']} of {total} ran; see {work}/last.log")
        return results
    if engine.runs_always:
        return results
    runs = [measure(engine.command(), folder, limit) for _ in range(reps)]
    record("noop", median(runs), ran(folder) / reps)
    # make and ninja compare times: a second is the coarsest grain of theirs
    for what, text in [
        ("touch", None),
        ("cutoff", "row 7\nsecond line\n"),
        ("change", "row 7 changed\nsecond line\n"),
        ("revert", "row 7\n"),
    ]:
        time.sleep(1.1)
        if text is None:
            os.utime(seventh)
        else:
            seventh.write_text(text)
        time.sleep(0.1)
        go(what)
        if (what == "change") != ("changed" in engine.output(folder)):
            print(f"! {name} {n} {what}: its output is WRONG")
            results[-1]["wrong"] = True
    engine.wipe(folder)
    go("wiped")
    return results


def table(results, n):
    """A line per engine: what ran, no-op, cold overhead per unit, memory."""
    by = {(r["engine"], r["probe"]): r for r in results if r["n"] == n}
    names = list(dict.fromkeys(r["engine"] for r in results if r["n"] == n))
    bare = by.get(("bare", "cold"))
    print(f"\n### {n} units: cpu seconds; probes as (cold, noop, touch, cutoff, change, revert, wiped)\n")
    print("| engine | units run | no-op | no-op / ninja | no-op MiB | cold | cold overhead, ms/unit |\n|---|---|---|---|---|---|---|")
    ninja = by.get(("ninja", "noop"))
    for name in names:
        cold, noop = by.get((name, "cold")), by.get((name, "noop"))
        counts = ", ".join(f"{by[name, p]['ran']:g}" if (name, p) in by else "-" for p in PROBES)
        over = f"{(cold['cpu'] - bare['cpu']) / cold['units'] * 1000:.2f}" if bare and name != "bare" else "-"
        ratio = f"{noop['cpu'] / ninja['cpu']:.2f}" if noop and ninja else "-"
        idle = (f"{noop['cpu']:.3f}", f"{noop['rss']:.0f}") if noop else ("-", "-")
        print(f"| {name} | {counts} | {idle[0]} | {ratio} | {idle[1]} | {cold['cpu']:.2f} | {over} |")
    wrong = [f"{r['engine']} {r['probe']}" for r in results if r["n"] == n and r.get("wrong")]
    if wrong:
        print(f"\nwrong output: {', '.join(wrong)}")


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--engine", nargs="+", default=list(ENGINES), choices=list(ENGINES))
    parse.add_argument("--n", nargs="+", type=int, default=[100, 1000, 10000])
    parse.add_argument("--work", type=Path, default=Path("target/bench"))
    parse.add_argument("--reps", type=int, default=3)
    parse.add_argument("--limit", type=float, default=900, help="seconds for one command")
    parse.add_argument("--json", type=Path, help="write the figures to this file [default: results.json in --work]")
    parse.add_argument("--rows", nargs="+", type=int, default=[100_000, 1_000_000])
    parse.add_argument("--skip-rows", action="store_true", help="only the graph")
    parse.add_argument("--skip-frames", action="store_true", help="no videos")
    parse.add_argument("--skip-cubes", action="store_true", help="no marching cubes")
    parse.add_argument("--skip-raster", action="store_true", help="no G-buffer")
    parse.add_argument("--skip-scores", action="store_true", help="no PSNR, SSIM and LPIPS")
    parse.add_argument("--skip-networks", action="store_true", help="no U-Net and ControlNet")
    parse.add_argument("--full-size", action="store_true", help="networks in Stable Diffusion 2.1's size as well: half an hour of cpu, 12 GB")
    parse.add_argument("--skip-graph", action="store_true", help="only rows and trees of files")
    args = parse.parse_args()
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    results = []
    chosen = [] if args.skip_graph else args.engine
    for name in chosen:
        if not ENGINES[name].program():
            print(f"! SKIPPED: {name} is not installed (benches/peers/install.sh)", flush=True)
    for n in args.n:
        for name in [name for name in chosen if ENGINES[name].program()]:
            if n > LARGEST.get(name, n):
                print(f"! SKIPPED: {name} at {n}, it would take too long", flush=True)
                continue
            results += probe(name, n, work, args.reps, args.limit)
    # only now: ext4 without a journal looks for minutes past every inode that was freed, at the cost of whoever comes next
    for name, n in [(name, n) for name in chosen for n in args.n]:
        shutil.rmtree(work / f"{name}-{n}", ignore_errors=True)
    for n in [] if args.skip_graph else args.n:
        table(results, n)
    if not args.skip_rows:
        results += rows.run(work, args.rows, args.reps)
    if not args.skip_frames:
        results += frames.run(work, args.reps)
    if not args.skip_cubes:
        results += marching_cubes.run(work, args.reps)
    if not args.skip_raster:
        results += raster.run(work, args.reps)
    if not args.skip_scores:
        results += scores.run(work, args.reps)
    if not args.skip_networks:
        results += networks.run(work, args.reps, args.full_size)
    target = args.json or work / "results.json"
    target.write_text(json.dumps(results, indent=1) + "\n")
    print(f"\nfigures: {target}")
    ours = [r for r in results if r.get("engine", "").startswith("effigy-")]
    right = {"cold": None, "noop": 0, "touch": 0, "cutoff": 1, "change": 4, "revert": 0, "wiped": 0}
    bad = [r for r in ours if r["ran"] != (r["units"] if right[r["probe"]] is None else right[r["probe"]]) or r.get("wrong")]
    for r in bad:
        print(f"! {r['engine']} at {r['n']}: {r['probe']} ran {r['ran']:g}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
