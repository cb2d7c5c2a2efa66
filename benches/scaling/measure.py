#!/usr/bin/env python3
"""What the engine costs on this machine: the constants that simulate.py computes with, each from two runs of different size.

    measure.py [--effigy target/debug/effigy] [--work DIR] [--rows 100000 ...] [--write costs.json]

Counted are cpu seconds of the process `effigy` alone, not of the workers and programs that it starts, so that a busy machine disturbs little.
What a job of Slurm costs is measured if `sinfo` answers (SLURM_CONF), else the constants for that stay as they are in costs.json. Standard
library and strace (for operations on files); Linux.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TICK = os.sysconf("SC_CLK_TCK")
ROWS = "  src: {{ stage: numbers, count: {n} }}\n"
RECIPES = {
    # row by row through a worker, a thousand rows in a batch
    "units": ROWS + "  a: {{ stage: add, from: src, amount: 1 }}\n",
    # a program for each row
    "tasks": ROWS + "  a: {{ run: 'true', from: src, reads: [id], writes: {{}} }}\n",
    "bytes": ROWS + "  a: {{ run: 'head -c 16000000 /dev/urandom > {{out}}/file; : {{id}}', shell: true, from: src, writes: {{ file: blob }} }}\n",
    "sleep": ROWS + "  a: {{ run: 'sleep 0.05', from: src, reads: [id], writes: {{}} }}\n",
}


def recipe(kind, n, provider):
    if kind == "tables":
        stages = "  s0: { rows: [{ i: 1 }, { i: 2 }] }\n"
        stages += "".join(f"  s{i}: {{ select: s{i - 1}, set: {{ i: {i} }} }}\n" for i in range(1, n))
    else:
        stages = RECIPES[kind].format(n=n)
    return f"recipe: r\nproviders: ['{provider}']\nstages:\n{stages}"


def own(argv, cwd):
    """Runs a command: wall seconds, cpu seconds and peak memory (MiB) of the process itself, and the last line it says."""
    begun = time.monotonic()
    child = subprocess.Popen(argv, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines, cpu, rss = [], 0.0, 0.0
    reader = threading.Thread(target=lambda: lines.extend(child.stdout))
    reader.start()
    while child.poll() is None:
        try:
            stat = Path(f"/proc/{child.pid}/stat").read_text().rsplit(") ", 1)[1].split()
            cpu = max(cpu, (int(stat[11]) + int(stat[12])) / TICK)
            rss = max(rss, int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{child.pid}/status").read_text()).group(1)) / 1024)
        except (FileNotFoundError, ProcessLookupError, AttributeError, IndexError):
            pass
        time.sleep(0.002)
    wall = time.monotonic() - begun
    reader.join()
    said = lines[-1].strip() if lines else ""
    if child.returncode:
        sys.exit(f"error: {' '.join(argv)} ended with {child.returncode}: {said}")
    return dict(wall=wall, cpu=cpu, rss=rss, said=said)


class Bench:
    def __init__(self, effigy, work):
        self.effigy, self.work = effigy, work
        self.provider = effigy.parent / "examples/test-provider"
        if not self.provider.exists():
            sys.exit(f"error: {self.provider} is not built\nhint: cargo build --workspace --examples")

    def folder(self, kind, n):
        folder = self.work / f"{kind}-{n}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "r.yaml").write_text(recipe(kind, n, self.provider))
        time.sleep(0.1)  # older than the clock's grain, as recipes are
        return folder

    def cold(self, kind, n, *more, before=()):
        folder = self.folder(kind, n)
        found = own([*before, str(self.effigy), "run", "r.yaml", "--json", "--quiet", *more], folder)
        return found, folder

    def slope(self, kind, small, large, *more):
        """cpu seconds for one more, from two sizes, the lesser of two measurements of each."""
        def least(n):
            found = []
            for _ in range(2):
                one, folder = self.cold(kind, n, *more)
                shutil.rmtree(folder)
                found.append(one["cpu"])
            return min(found)
        return max(0.0, least(large) - least(small)) / (large - small)

    def operations(self, kind, small, large, *more):
        """System calls that name a file, for one more, of the thread that runs the recipe."""
        def count(n):
            log = self.work / "strace.log"
            _, folder = self.cold(kind, n, *more, before=("strace", "-c", "-e", "trace=%file", "-o", str(log)))
            shutil.rmtree(folder)
            total = [line.split() for line in log.read_text().splitlines() if line.endswith("total")]
            return int(total[0][3] if len(total[0]) > 4 else total[0][2])
        return (count(large) - count(small)) / (large - small)


# what `sbatch` would do on a node that is free, with every job in a command that watches it
SBATCH = """#!/bin/sh
for word; do case "$word" in --array=*) last=${{word#--array=0-}}; last=${{last%%%*}};; esac; script=$word; done
i=0
while [ "$i" -le "$last" ]; do
  SLURM_ARRAY_TASK_ID=$i SLURM_JOB_ID=1_$i setsid {watch} sh "$script" > /dev/null 2>&1 &
  i=$((i + 1))
done
echo 1
"""


def of_jobs(bench, watch, read):
    """A quantity of a job and of each of its tasks, on the node: `watch` leaves it in files `job.*`, `read` takes it out of one."""
    place = bench.work / "bin"
    place.mkdir(exist_ok=True)
    (place / "sbatch").write_text(SBATCH.format(watch=watch.format(log=bench.work / "job")))
    (place / "sbatch").chmod(0o755)
    def of(tasks):
        """The quantity for one job with so many tasks."""
        folder = bench.folder("tasks", tasks)
        (folder / "cluster.yaml").write_text(f"{{ jobs: 1, tasks: {tasks} }}\n")
        recipe = (folder / "r.yaml").read_text()
        (folder / "r.yaml").write_text(recipe.replace("run: 'true'", "executor: slurm, run: 'true'"))
        path = os.environ["PATH"]
        os.environ["PATH"] = f"{place}:{path}"
        own([str(bench.effigy), "run", "r.yaml", "--json", "--quiet"], folder)
        os.environ["PATH"] = path
        time.sleep(0.5)  # the job ends after it has told of its last task
        shutil.rmtree(folder)
        logs = list(bench.work.glob("job.*"))
        found = [read(log.read_text()) for log in logs]
        [log.unlink() for log in logs]
        if not found:
            sys.exit(f"error: a job of {tasks} tasks left no trace")
        return sum(found) / len(found)
    few, many = of(4), of(44)
    each = max(0.0, (many - few) / 40)
    return max(0.0, few - 4 * each), each


def operations_of_jobs(bench):
    """System calls that name a file or reach one, for a job and for each of its tasks."""
    def total(text):
        line = next(line.split() for line in text.splitlines() if line.endswith("total"))
        return int(line[3] if len(line) > 4 else line[2])
    return of_jobs(bench, 'strace -c -e trace=%file,read,write -o "{log}.$$.$i"', total)


def seconds_of_jobs(bench):
    """Seconds from the beginning of a job to its first task, and those that it adds to a task, of which the program's start is one part."""
    watch = "sh -c 'a=$(date +%s%N); \"$@\"; b=$(date +%s%N); echo $((b - a)) > \"{log}.$$\"' watch"
    return of_jobs(bench, watch, lambda text: int(text) / 1e9)


def folder_rate(work):
    """Small files that are made, renamed and removed in a second, as three operations each."""
    place = work / "names"
    place.mkdir()
    begun, n = time.monotonic(), 5000
    for i in range(n):
        path = place / str(i)
        path.write_bytes(b"x")
        path.rename(place / f"{i}.done")
        (place / f"{i}.done").unlink()
    place.rmdir()
    return 3 * n / (time.monotonic() - begun)


def limits(bench, counts):
    print("\n| rows | cold s | own cpu s | MiB | nothing to do s | MiB | plan s | one row in 100 added: cpu s |\n|---|---|---|---|---|---|---|---|")
    for n in counts:
        cold, folder = bench.cold("units", n)
        again = own([str(bench.effigy), "run", "r.yaml", "--json", "--quiet"], folder)
        plan = own([str(bench.effigy), "plan", "r.yaml"], folder)
        (folder / "r.yaml").write_text(recipe("units", n + n // 100, bench.provider))
        more = own([str(bench.effigy), "run", "r.yaml", "--json", "--quiet"], folder)
        executed = json.loads(more["said"])["executed"]
        if executed != n // 100 + 1:
            print(f"! of {n} rows {executed} ran again")
        print(f"| {n:,} | {cold['wall']:.1f} | {cold['cpu']:.2f} | {cold['rss']:.0f} | {again['wall']:.3f} | {again['rss']:.0f} "
              f"| {plan['wall']:.2f} | {more['cpu']:.2f} |", flush=True)
        shutil.rmtree(folder)


def slurm(bench):
    """Seconds of a job for the controller and its node, and of the command that hands jobs in."""
    if subprocess.run(["sinfo", "-h"], capture_output=True).returncode if shutil.which("sinfo") else True:
        print("not tried: jobs of Slurm, because `sinfo` does not answer")
        return {}
    def seconds(n):
        folder = bench.folder("sleep", n)
        (folder / "cluster.yaml").write_text("{ jobs: 500, tasks: 1, memory_mb: 50 }\n")
        found = own([str(bench.effigy), "run", "r.yaml", "--json", "--executor", "slurm"], folder)
        shutil.rmtree(folder)
        return found["wall"]
    few, many = seconds(8), seconds(48)
    begun, n = time.monotonic(), 10
    for _ in range(n):
        subprocess.run(["sbatch", "--parsable", "--mem=50M", "--output=/dev/null", "--wrap=true"], check=True, stdout=subprocess.DEVNULL)
    return dict(job_s=(many - few) / 40, submit_s=(time.monotonic() - begun) / n)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--effigy", type=Path, default=ROOT / "target/debug/effigy")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--write", type=Path, help="write the constants here")
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(dir=args.work))
    try:
        bench = Bench(args.effigy.resolve(), work)
        found = json.loads((HERE / "costs.json").read_text())["costs"]
        load = os.getloadavg()[0]
        found["unit_s"] = bench.slope("units", 10_000, 60_000)
        found["task_s"] = bench.slope("tasks", 200, 1_700, "--jobs", "2")
        found["stage_s"] = bench.slope("tables", 50, 550)
        if shutil.which("strace"):
            found["job_operations"], of_task = operations_of_jobs(bench)
            found["task_operations"] = bench.operations("tasks", 50, 250) + of_task
        else:
            print("not tried: operations on files, because there is no strace")
        found["job_start_s"], found["task_work_s"] = seconds_of_jobs(bench)
        found["folder_operations_per_s"] = folder_rate(work)
        found.update(slurm(bench))
        each = bench.slope("bytes", 4, 44, "--jobs", "2")
        cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown")
        machine = f"{cpu}, {os.cpu_count()} threads, load {load:.1f}"
        print(f"on {machine}:")
        for name, value in found.items():
            print(f"  {name:24} {value:.3g}")
        print(f"  {'a byte that is put out':24} {max(0, each - found['task_s']) / 16e6:.2g} s of cpu")
        limits(bench, args.rows)
        if args.write:
            rounded = {name: float(f"{value:.3g}") for name, value in found.items()}
            args.write.write_text(json.dumps({"machine": machine, "costs": rounded}, indent=2) + "\n")
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
