#!/usr/bin/env python3
"""Whether simulate.py is right: runs a recipe of several stages here, and on a Slurm cluster if one answers, and compares what it took with
what is foretold from the record of the run here.

    check.py [--effigy target/debug/effigy] [--error 0.25] [--nodes 2 --cores 2] [--costs costs.json]

Work is sleeping, so that the machine need not be idle. On the cluster, jobs of many tasks and jobs of few are compared; their cost is that of
costs.json, unless this cluster's own is measured first (`measure.py --write`). Ends with 1 if a prediction is off by more than the error.
Standard library only.
"""
import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import simulate
from measure import ROOT, own

RECIPE = """recipe: r
stages:
  src: {{ rows: [{rows}] }}
  one: {{ run: 'sleep 0.3', from: src, reads: [i], writes: {{}} }}
  two: {{ run: 'sleep 0.5', from: one, reads: [i], where: {{ i: {{ max: 40 }} }}, writes: {{}} }}
  beside: {{ run: 'sleep 0.2', from: src, reads: [i], where: {{ i: {{ min: 20 }} }}, writes: {{}} }}
  train: {{ run: 'sleep 3', from: two, grain: whole, writes: {{ m: blob }} }}
"""
RECIPE = RECIPE.replace("'sleep 3', from: two, grain: whole,", "'sleep 3; echo 1 > {{out}}/m', shell: true, from: two, grain: whole,")
ROWS = 64


def run(effigy, folder, name, *more):
    """Runs it in a workspace of its own; its record and what it took."""
    found = own([str(effigy), "run", "r.yaml", "--json", "--quiet", "--workspace", name, *more], folder)
    said = json.loads(found["said"])
    if said["failed"] or said["cached"]:
        sys.exit(f"error: it did not run as it should: {said}")
    runs = folder / name / "runs"
    return runs / ((runs / "latest").read_text().strip() + ".json"), said["seconds"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--effigy", type=Path, default=ROOT / "target/debug/effigy")
    parser.add_argument("--error", type=float, default=0.25)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--costs", type=Path, default=simulate.HERE / "costs.json")
    args = parser.parse_args()
    effigy, folder = args.effigy.resolve(), Path(tempfile.mkdtemp())
    (folder / "r.yaml").write_text(RECIPE.format(rows=", ".join(f"{{ i: {i} }}" for i in range(ROWS))))
    cost, worst = simulate.costs(args.costs, []), 0.0
    print("| | took s | foretold s | off by |\n|---|---|---|---|")

    def compare(what, record, took, place):
        nonlocal worst
        stages, _ = simulate.read(record)
        found = simulate.simulate(stages, cost, place)
        off = found["seconds"] / took - 1
        worst = max(worst, abs(off))
        print(f"| {what} | {took:.1f} | {found['seconds']:.1f} | {off:+.0%} |", flush=True)

    try:
        record = None
        for jobs in (8, 3):
            here, took = run(effigy, folder, f"here-{jobs}", "--jobs", str(jobs))
            record = record or here
            compare(f"here, `--jobs {jobs}`", record, took, dict(cluster=False, nodes=1, cores=jobs, jobs=1, tasks=1))
        slurm = shutil.which("sinfo") and subprocess.run(["sinfo", "-h"], capture_output=True).returncode == 0
        if not slurm:
            print("not tried: a cluster, because `sinfo` does not answer (SLURM_CONF)")
        for jobs, tasks in [(4, 16), (4, 4), (16, 2)] if slurm else []:
            (folder / "cluster.yaml").write_text(f"{{ jobs: {jobs}, tasks: {tasks}, memory_mb: 50 }}\n")
            _, took = run(effigy, folder, f"cluster-{jobs}-{tasks}", "--executor", "slurm")
            place = dict(cluster=True, nodes=args.nodes, cores=args.cores, jobs=jobs, tasks=tasks)
            compare(f"Slurm, `jobs: {jobs}, tasks: {tasks}`", record, took, place)
    finally:
        shutil.rmtree(folder)
    if worst > args.error:
        print(f"error: off by {worst:.0%}, more than {args.error:.0%}\nhint: measure this machine's costs first: measure.py --write costs.json")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
