#!/usr/bin/env python3
"""What a run would take on another machine or a cluster: simulated from the record of a real run and measured costs.

    simulate.py .effigy/runs/RUN.json [--machine | --cluster] [--nodes N] [--cores N] [--jobs N] [--tasks N]
                [--units N [--grow rows|all]] [--costs costs.json] [--cost NAME=VALUE ...] [--json]

A record tells of each stage how many units ran, how long they took, how its work was cut and what it takes. The same rules as the
engine's then decide, event by event, what is handed in when: a stage begins when those before it are done, tasks are cut as `effigy run`
cuts them, and on a cluster they become jobs. Four things have a queue: the threads of the nodes, the coordinator (one thread), the
controller that starts jobs, and the metadata server of the shared folder. What each is busy for bounds the run from below, and so do the
longest chain of single units and the longest chain of jobs as they were packed; whichever bound is the largest is named as the bottleneck.

`--units` multiplies the units of stages of grain row and group until there are so many (`--grow rows`: trainings stay what they are), or
those of every stage (`--grow all`: more data sets side by side). Nothing fails, no cache helps, and all units of a stage take their mean,
but one, which takes as long as the longest did. Standard library only.
"""
import argparse
import heapq
import json
import os
import sys
from collections import deque
from pathlib import Path

HERE = Path(__file__).resolve().parent
# as in the engine (pipeline/src/run/active.rs): a task of many units
MOST_UNITS = 256
# the pause between two looks at the files of jobs, and what each job adds to it (pipeline/src/executor/slurm.rs)
POLL_S, POLL_EACH_S = 0.02, 0.001
# jobs that have only just begun keep their tasks (a third of `silent_s`)
BEAT_S = 20


class Stage:
    """A stage that has work, as a record tells it."""

    def __init__(self, entry, names):
        cut = entry.get("cut") or {}
        self.name, self.units = entry["name"], entry["executed"]
        self.mean = entry["seconds"] / self.units if self.units else 0.0
        self.longest = cut.get("longest", self.mean)
        self.grain, self.alone = cut.get("grain", "row"), cut.get("alone", True)
        self.batch, self.threads = max(1, cut.get("batch", 1)), cut.get("threads", 1)
        needs = list(entry.get("from", [])) + [name for _, name in entry.get("with", [])]
        self.needs = [name for name in needs if name in names]

    def tasks(self, lanes):
        """Sizes of the tasks that it is cut into, of which so many are worked on side by side."""
        if not self.units:
            return []
        size = 1
        if not self.alone:
            size = -(-self.units // (lanes * 4))
            size = -(-size // self.batch) * self.batch
            size = min(max(size, self.batch), max(MOST_UNITS, self.batch))
        whole, rest = divmod(self.units, size)
        return [size] * whole + ([rest] if rest else [])


def read(path):
    """The stages of a record, in the order of the plan, and the record."""
    with open(path) as file:
        record = json.load(file)
    names = {entry["name"] for entry in record["stages"]}
    return [Stage(entry, names) for entry in record["stages"]], record


def grow(stages, units, how):
    """Multiplies units until there are about so many."""
    many = [stage for stage in stages if how == "all" or stage.grain != "whole"]
    now, fixed = sum(stage.units for stage in many), sum(stage.units for stage in stages if stage not in many)
    factor = max(1.0, (units - fixed) / now) if now else 1.0
    for stage in many:
        stage.units = round(stage.units * factor)
    return factor


class Queue:
    """Something that does one thing after the other."""

    def __init__(self):
        self.free, self.busy = 0.0, 0.0

    def serve(self, now, seconds):
        self.free = max(now, self.free) + seconds
        self.busy += seconds
        return self.free


class Simulation:
    """One run. `place`: cluster, nodes, cores, jobs, tasks; `cost`: see costs.json."""

    def __init__(self, stages, cost, place):
        self.stages, self.cost, self.place = stages, cost, place
        self.threads = place["nodes"] * place["cores"]
        self.lanes = place["jobs"] if place["cluster"] else self.threads
        self.free = self.threads
        self.coordinator, self.controller, self.metadata = Queue(), Queue(), Queue()
        self.by_name = {stage.name: stage for stage in stages}
        self.open_needs = {stage.name: len(set(stage.needs)) for stage in stages}
        self.followers = {stage.name: [] for stage in stages}
        for stage in stages:
            for name in set(stage.needs):
                self.followers[name].append(stage)
        self.waiting = {}  # tasks of stages at work, in the order of the plan
        self.left = {}
        self.fresh = set()  # stages of which no task has been in work
        self.gathered, self.jobs, self.queued, self.open_tasks = [], 0, deque(), 0
        self.events, self.number, self.work = [], 0, 0.0
        self.handed = self.tasks = 0
        self.lane_s, self.job_s = 0.0, {}  # of all jobs, from hand to end; of the longest job of each stage, by its first task
        self.ended_at = {}
        # jobs by the identity of their list of tasks: the list, how many wait behind the one in work, and since when it runs
        self.at_work = {}
        self.asked, self.shared = set(), 0.0  # those that were asked to give tasks back, and when that was thought of last

    def at(self, time, what, *more):
        self.number += 1
        heapq.heappush(self.events, (time, self.number, what, more))

    def takes(self, stage):
        """Threads of a task."""
        most = self.place["cores"]
        return most if stage.threads == 0 else min(stage.threads, most)

    def touch(self, now, operations):
        """Operations on the shared folder, one after the other."""
        if not self.place["cluster"]:
            return now
        rate = self.cost["folder_operations_per_s"]
        # what the looks at the files of jobs leave of it
        looks = self.jobs / (POLL_S + POLL_EACH_S * self.jobs)
        return self.metadata.serve(now, operations / max(rate - looks, rate / 10))

    def run(self):
        for stage in self.stages:
            if not self.open_needs[stage.name]:
                self.begin(0.0, stage)
        self.submit(0.0)
        last = 0.0
        while self.events:
            time, _, what, more = heapq.heappop(self.events)
            last = max(last, time)
            getattr(self, what)(time, *more)
        return max([last, *self.ended_at.values()])

    def begin(self, now, stage):
        """Those before it are done: keys, one look at each, and its tasks."""
        now = self.coordinator.serve(now, self.cost["stage_s"] + stage.units * self.cost["unit_s"] / 2)
        sizes = stage.tasks(self.lanes if self.place["cluster"] else max(1, self.threads // self.takes(stage)))
        if not sizes:
            self.at(now, "end", stage)
            return
        self.waiting[stage.name] = deque(sizes)
        self.left[stage.name] = len(sizes)
        self.fresh.add(stage.name)
        self.tasks += len(sizes)
        self.at(now, "submit")

    def end(self, now, stage):
        self.ended_at[stage.name] = now
        for follower in self.followers[stage.name]:
            self.open_needs[follower.name] -= 1
            if not self.open_needs[follower.name]:
                self.begin(now, follower)

    def submit(self, now):
        if self.place["cluster"]:
            self.submit_jobs(now)
            return
        for stage in self.stages:
            tasks = self.waiting.get(stage.name)
            while tasks and self.free >= self.takes(stage):
                self.free -= self.takes(stage)
                size = tasks.popleft()
                began = self.coordinator.serve(now, self.cost["task_s"] / 2)
                seconds = self.seconds(stage, size)
                self.work += seconds * self.takes(stage)
                self.at(began + seconds, "done", stage, size)

    def seconds(self, stage, size):
        """A task's own; the first task of a stage has its longest unit."""
        if stage.name in self.fresh:
            self.fresh.discard(stage.name)
            return stage.longest + (size - 1) * stage.mean
        return size * stage.mean

    def done(self, now, stage, size):
        """On one machine: a task is over."""
        now = self.collect(now, size)
        self.free += self.takes(stage)
        self.over(now, stage)
        self.submit(now)

    def collect(self, now, size):
        return self.coordinator.serve(now, self.cost["task_s"] / 2 + size * self.cost["unit_s"] / 2)

    def over(self, now, stage):
        self.left[stage.name] -= 1
        if not self.left[stage.name]:
            del self.waiting[stage.name]
            self.end(now, stage)

    # on a cluster

    def submit_jobs(self, now):
        most = self.place["jobs"] * self.place["tasks"]
        now = max(now, self.coordinator.free)
        for stage in self.stages:
            tasks = self.waiting.get(stage.name)
            while tasks:
                room = self.open_tasks < most if self.gathered else self.open_tasks <= most // 2
                if not room:
                    break
                size = tasks.popleft()
                now = self.touch(self.coordinator.serve(now, self.cost["task_s"] / 2), self.cost["task_operations"] / 3)
                self.open_tasks += 1
                self.gathered.append((stage, size))
        kinds = {}
        for stage, size in self.gathered:
            kinds.setdefault(stage.threads, []).append((stage, size))
        self.gathered = []
        for tasks in kinds.values():
            room = max(1, self.place["jobs"] - self.jobs)
            jobs = max(min(len(tasks), room), -(-len(tasks) // self.place["tasks"]))
            each, more = divmod(len(tasks), jobs)
            now = self.coordinator.serve(now, self.cost["submit_s"])
            self.jobs += jobs
            self.handed += jobs
            for job in range(jobs):
                first = job * each + min(job, more)
                self.queued.append((now, tasks[first : first + each + (job < more)]))
        self.start_jobs(now)

    def start_jobs(self, now):
        """The controller starts what fits, first come first served."""
        while self.queued:
            handed, tasks = self.queued[0]
            threads = self.takes(tasks[0][0])
            if self.free < threads:
                break
            self.queued.popleft()
            self.free -= threads
            started = self.controller.serve(max(now, handed), self.cost["job_s"])
            self.at(started + self.cost["job_start_s"], "started", tasks)

    def started(self, now, tasks):
        began = self.touch(now, self.cost["job_operations"])
        self.at(began, "task", tasks, 0, began)

    def task(self, now, tasks, i, began):
        """A job begins the next of its tasks, or is over: it has none, or gives back what it has not begun, as it was asked."""
        self.share(now)
        self.at_work[id(tasks)] = (tasks, len(tasks) - i - 1, began)
        if i and i < len(tasks) and id(tasks) in self.asked:
            self.gathered += tasks[i:]
            i = len(tasks)
        if i == len(tasks):
            del self.at_work[id(tasks)]
            self.asked.discard(id(tasks))
            self.free += self.takes(tasks[0][0])
            self.work += (now - began) * self.takes(tasks[0][0])
            self.lane_s += now - began
            name = tasks[0][0].name
            self.job_s[name] = max(self.job_s.get(name, 0.0), now - began)
            self.start_jobs(now)
            self.at(now + POLL_S + POLL_EACH_S * self.jobs, "gone")
            return
        stage, size = tasks[i]
        ended = self.touch(now, self.cost["task_operations"] / 3) + self.seconds(stage, size) + self.cost["task_work_s"]
        # it is heard with the next look at the files of all jobs
        self.at(ended + (POLL_S + POLL_EACH_S * self.jobs) / 2, "heard", stage, size)
        self.at(ended, "task", tasks, i + 1, began)

    def gone(self, now):
        self.jobs -= 1
        self.submit_jobs(now)

    def share(self, now):
        """Where jobs could be had and no task waits to be handed in, those that have long been at work are asked for what they have not begun."""
        if now < self.shared + 1:
            return
        self.shared = now
        free = self.place["jobs"] - self.jobs
        if free <= 0 or self.gathered or len(self.at_work) < self.jobs or self.open_tasks > self.place["jobs"] * self.place["tasks"] // 2:
            return
        wanted = free - sum(self.at_work[one][1] for one in self.asked if one in self.at_work)
        laden = [(behind, one) for one, (_, behind, began) in self.at_work.items() if behind > 0 and one not in self.asked and now - began > BEAT_S]
        for behind, one in sorted(laden, reverse=True):
            if wanted <= 0:
                break
            wanted -= behind
            self.asked.add(one)

    def heard(self, now, stage, size):
        now = self.touch(self.collect(now, size), self.cost["task_operations"] / 3)
        self.open_tasks -= 1
        self.over(now, stage)
        if self.waiting:
            self.submit_jobs(now)

    def chain(self, of_stage):
        """The longest chain of stages, each of which takes so long; and the stage of it that takes longest."""
        longest, most = {}, {}
        for stage in self.stages:
            last = max((name for name in stage.needs if name in longest), key=longest.get, default=None)
            longest[stage.name] = (longest[last] if last else 0.0) + of_stage(stage)
            of_last = most[last] if last else stage
            most[stage.name] = stage if of_stage(stage) >= of_stage(of_last) else of_last
        name = max(longest, key=longest.get)
        return longest[name], most[name].name


def simulate(stages, cost, place):
    """A dictionary: seconds, bounds in seconds by name, the bottleneck, and what was done."""
    simulation = Simulation(stages, cost, place)
    seconds = simulation.run()
    chain, longest = simulation.chain(lambda stage: stage.longest if stage.units else 0.0)
    of_jobs, longest_jobs = simulation.chain(lambda stage: simulation.job_s.get(stage.name, 0.0))
    bounds = {
        f"threads of {place['nodes']} nodes": simulation.work / simulation.threads,
        f"chain of single units, longest in `{longest}`": chain,
        "coordinator (one thread)": simulation.coordinator.busy,
        "controller that starts jobs": simulation.controller.busy,
        "metadata of the shared folder": simulation.metadata.busy,
    }
    if place["cluster"]:
        bounds[f"chain of jobs of up to {place['tasks']} tasks one after the other, longest in `{longest_jobs}`"] = of_jobs
        bounds[f"{place['jobs']} jobs at the same time"] = simulation.lane_s / place["jobs"]
    units = sum(stage.units for stage in stages)
    slowest = max(stages, key=lambda stage: stage.units * stage.mean)
    return dict(
        seconds=seconds, units=units, tasks=simulation.tasks, jobs=simulation.handed, bounds=bounds,
        bottleneck=max(bounds, key=bounds.get), most_work=slowest.name,
    )


def costs(path, changes):
    with open(path) as file:
        cost = json.load(file)["costs"]
    for change in changes:
        name, _, value = change.partition("=")
        if name not in cost:
            sys.exit(f"error: there is no cost `{name}`\nhint: there are {', '.join(cost)}")
        cost[name] = float(value)
    return cost


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", nargs="?", help="the record of a run: .effigy/runs/RUN.json")
    parser.add_argument("--cluster", action="store_true", help="Slurm; else one machine")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="threads of a node")
    parser.add_argument("--jobs", type=int, default=100, help="`jobs:` of the cluster's file")
    parser.add_argument("--tasks", type=int, default=16, help="`tasks:` of the cluster's file")
    parser.add_argument("--units", type=float, help="multiply the units until there are so many")
    parser.add_argument("--grow", choices=["rows", "all"], default="rows")
    parser.add_argument("--costs", default=HERE / "costs.json")
    parser.add_argument("--cost", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--self-check", action="store_true", help="compare with cases that can be computed by hand")
    return parser.parse_args()


def self_check():
    """Cases whose answers are known: no cost but what is said."""
    none = dict.fromkeys(
        "unit_s task_s stage_s submit_s job_s job_start_s job_operations task_work_s task_operations".split(), 0.0
    ) | {"folder_operations_per_s": 1e12}

    def entry(name, units, each, needs=(), **cut):
        cut = dict(grain="row", alone=True, batch=1, threads=1, longest=each) | cut
        return dict(name=name, executed=units, seconds=units * each, cut=cut) | {"from": list(needs)}

    def run(entries, place, **cost):
        stages = [Stage(one, {one["name"] for one in entries}) for one in entries]
        return simulate(stages, none | cost, dict(cluster=False, nodes=1, cores=4, jobs=100, tasks=16) | place)

    cases = [
        ("ten units of 1 s on four threads", run([entry("a", 10, 1)], {})["seconds"], 3),
        ("two stages, one after the other", run([entry("a", 4, 1), entry("b", 4, 2, ["a"])], {})["seconds"], 3),
        ("two stages side by side", run([entry("a", 2, 1), entry("b", 2, 1)], {})["seconds"], 1),
        ("tasks of all threads run alone", run([entry("a", 3, 1, threads=0)], {})["seconds"], 3),
        ("one unit is longer", run([entry("a", 4, 1, longest=5)], {})["seconds"], 5),
        ("a coordinator of 1 s a task", run([entry("a", 100, 0.001)], {}, task_s=1)["bounds"]["coordinator (one thread)"], 100),
        ("batches are cut as the engine does", len(Stage(entry("a", 1000, 1, alone=False, batch=4), []).tasks(2)), 8),
    ]
    cluster = dict(cluster=True, nodes=10, jobs=40, tasks=1)
    many = run([entry("a", 400, 1)], cluster, job_s=1)
    cases += [
        ("a controller of one job a second", many["bounds"]["controller that starts jobs"], 400),
        ("and it is the bottleneck", many["bottleneck"], "controller that starts jobs"),
        ("a folder of ten operations a second", run([entry("a", 400, 1)], cluster, task_operations=3, folder_operations_per_s=10)["bottleneck"], "metadata of the shared folder"),
    ]
    behind = dict(cluster=True, nodes=10, jobs=4, tasks=4)
    cases += [
        ("four tasks behind each other", run([entry("a", 16, 5), entry("b", 1, 1)], behind)["seconds"] // 1, 20),
        ("what waits behind long tasks is given back", run([entry("a", 16, 10), entry("b", 8, 100, threads=2)], behind | dict(jobs=8))["seconds"] // 10, 20),
    ]
    wrong = [(what, got, wanted) for what, got, wanted in cases if (abs(got - wanted) > 1e-6 if isinstance(wanted, int) else got != wanted)]
    for what, got, wanted in wrong:
        print(f"wrong: {what}: {got}, not {wanted}")
    print(f"{len(cases) - len(wrong)} of {len(cases)} cases are right")
    return 1 if wrong else 0


def main():
    args = arguments()
    if args.self_check:
        return self_check()
    if not args.record:
        sys.exit("error: no record of a run is named\nhint: `effigy run` leaves them in .effigy/runs")
    stages, record = read(args.record)
    if not any(stage.units for stage in stages):
        sys.exit(f"error: nothing ran in {args.record}\nhint: take the record of a cold run")
    factor = grow(stages, args.units, args.grow) if args.units else 1.0
    place = dict(cluster=args.cluster, nodes=args.nodes, cores=args.cores, jobs=args.jobs, tasks=args.tasks)
    found = simulate(stages, costs(args.costs, args.cost), place)
    found.update(record=record["run"], took=record["seconds"], factor=factor)
    if args.json:
        print(json.dumps(found))
        return 0
    print(f"run {record['run']} of {record['recipe']}: {record['executed']} units in {record['seconds']:.0f} s there")
    print(f"here: {found['units']:,} units in {found['tasks']:,} tasks and {found['jobs']:,} jobs: {found['seconds']:,.0f} s")
    for name, seconds in sorted(found["bounds"].items(), key=lambda one: -one[1]):
        print(f"  {seconds:12,.1f} s  {name}")
    print(f"bottleneck: {found['bottleneck']}; most work: `{found['most_work']}`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
