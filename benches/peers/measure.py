"""What a command costs: cpu seconds of its whole process tree, wall seconds, the peak memory of its largest process.

Knows nothing of pipelines. Standard library only; Linux.
"""
import ctypes
import os
import shutil
import signal
import statistics
import subprocess
import time

PR_SET_CHILD_SUBREAPER = 36
# a small launcher: the maximum of a child forked from Python never drops below Python's own
GNU_TIME = shutil.which("time")
# processes whose parent ended before them become ours, so that their time counts as well
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def find(name):
    """The path of a program, or None: first where install.sh puts peers, then in PATH."""
    local = os.path.join(os.environ.get("BENCH_BIN_DIR", ""), name)
    return local if os.path.isabs(local) and os.access(local, os.X_OK) else shutil.which(name)


def spent(usage):
    return usage.ru_utime + usage.ru_stime


def orphans(group):
    """The cpu seconds of what the command left behind; what does not end within ten seconds is ended."""
    cpu, until = 0.0, time.monotonic() + 10
    while True:
        try:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return cpu
        if pid:
            cpu += spent(usage)
        elif time.monotonic() > until:
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                return cpu
        else:
            time.sleep(0.001)


def measure(argv, cwd, limit=600.0):
    """Runs a command: {wall, cpu, rss (MiB), rc}; rc is 124 if it took longer than the limit. Its output is in ../last.log."""
    beside = os.path.dirname(os.path.abspath(str(cwd)))
    peak = os.path.join(beside, "last.rss")
    timed = [GNU_TIME, "-q", "-o", peak, "-f", "%M"] if GNU_TIME else []
    begun = time.monotonic()
    with open(os.path.join(beside, "last.log"), "wb") as log:
        child = subprocess.Popen(
            timed + argv, cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env=dict(os.environ, DVC_NO_ANALYTICS="1"),
        )
        late = False
        while True:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            elapsed = time.monotonic() - begun
            if elapsed > limit:
                late = True
                os.killpg(child.pid, signal.SIGKILL)
                pid, status, usage = os.wait4(child.pid, 0)
                break
            time.sleep(0.0005 if elapsed < 1 else 0.01)
        child.returncode = 0
    wall = time.monotonic() - begun
    cpu = spent(usage) + orphans(child.pid)
    rss = usage.ru_maxrss
    if timed and not late:
        with open(peak) as file:
            rss = int(file.read().split()[-1])
    return dict(wall=wall, cpu=cpu, rss=rss / 1024, rc=124 if late else os.waitstatus_to_exitcode(status))


def example(name):
    """The path of one of our examples, built beside the program `effigy`; None if it is not there."""
    effigy = find("effigy")
    path = effigy and os.path.join(os.path.dirname(os.path.realpath(effigy)), "examples", name)
    return path if path and os.access(path, os.X_OK) else None


# one thread, and none that spins while it waits: that would count as work
ONE_THREAD = ["env", "RAYON_NUM_THREADS=1", "OMP_NUM_THREADS=1", "MKL_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1", "OMP_WAIT_POLICY=PASSIVE"]


def per_round(programs, rounds, reps, folder):
    """What a round costs programs that do their work N times, on one thread: `programs` gives for each name the command from N. Each does it once, then 1 + `rounds`
    times: the difference of cpu seconds is what the rounds cost, without start, imports and loading. They take turns, so that a busy machine is busy for all. Gives back
    the median figures (cpu of a round, peak memory of the whole) and the words of each one's last line."""
    taken, said = {name: [] for name in programs}, {}
    for _ in range(reps):
        for name, command in programs.items():
            runs = [measure(ONE_THREAD + command(n), folder / "in") for n in [1, 1 + rounds]]
            assert all(r["rc"] == 0 for r in runs), f"{name}: see {folder / 'last.log'}"
            said[name] = (folder / "last.log").read_text().strip().splitlines()[-1].split()
            taken[name].append({"cpu": (runs[1]["cpu"] - runs[0]["cpu"]) / rounds, "rss": runs[1]["rss"]})
    return {name: median(of) for name, of in taken.items()}, said


def median(runs):
    """The median of each figure of several measurements."""
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}
