#!/usr/bin/env python3
"""A provider: stages of your own in Python, with types, memory for every row and clear errors. `pip install pyarrow`, then

    effigy run python.yaml              the recipe beside this file
    effigy stages --provider "python3 words.py"
    effigy provider check "python3 words.py"

Above are the stages, each a function from the rows of a unit to rows; below is all that the protocol takes (ARCHITECTURE.md,
"Providers and the task directory"). Copy the file and change what is above the line.
"""
import json
import os
import sys

import pyarrow as pa

VERSION = "0.1.0"
STAGES = {}


def stage(version, grain, reads, writes, params=None):
    """Makes a function a stage. Raise `version` when its results can change: it enters every key."""

    def register(function):
        STAGES[function.__name__] = {
            "kind": function.__name__,
            "version": version,
            "doc": function.__doc__,
            "grain": grain,
            "reads": [{"name": name, "type": type} for name, type in reads.items()],
            "writes": [{"name": name, "type": type} for name, type in writes.items()],
            "params": {"type": "object", "properties": params or {}, "additionalProperties": False},
        }, function
        return function

    return register


# A unit of grain row is one row. Give back a list of rows: one, several (the row fans out), or none (it is dropped).
# A column of files (blob) is a path, coming and going; `task.file(name)` is a place for a new one.


@stage(1, "row", {"file": "blob"}, {"words": "i64", "mean_length": "f64", "loud": "blob"})
def count_words(rows, params, task):
    """Counts the words of a text, and writes it in capitals."""
    with open(rows[0]["file"], encoding="utf-8") as file:
        text = file.read()
    words = text.split()
    loud = task.file("loud.txt")
    with open(loud, "w", encoding="utf-8") as file:
        file.write(text.upper())
    # None is a value that is not there
    mean = sum(map(len, words)) / len(words) if words else None
    return [{"words": len(words), "mean_length": mean, "loud": loud}]


@stage(
    1, "row", {"file": "blob"}, {"word": "str", "place": "i64"},
    {"least": {"type": "integer", "minimum": 1, "default": 4, "description": "Letters that a word has at least."}},
)
def long_words(rows, params, task):
    """A row for each long word of a text."""
    with open(rows[0]["file"], encoding="utf-8") as file:
        words = [word.strip(".,;:!?").lower() for word in file.read().split()]
    return [{"word": word, "place": place} for place, word in enumerate(words) if len(word) >= params["least"]]


# A unit of grain group is the rows that are equal in the columns named by `by:`, of grain whole all rows. A row with "_of"
# extends that row of the unit; one without stands alone.


@stage(1, "group", {"place": "i64"}, {"rank": "i64"})
def rank(rows, params, task):
    """Ranks the rows of a group by their place, from 0."""
    order = sorted(range(len(rows)), key=lambda i: rows[i]["place"])
    return [{"_of": i, "rank": rank} for rank, i in enumerate(order)]


# ---------------------------------------------------------------------------------------------------- the protocol

ARROW = {"bool": pa.bool_(), "i64": pa.int64(), "f64": pa.float64(), "str": pa.string(), "blob": pa.string()}


def arrow(type):
    """The Arrow type of a column; `floats[3]` is three numbers."""
    return ARROW.get(type) or pa.list_(pa.float64(), int(type.removeprefix("floats[").removesuffix("]")))


def say(**event):
    print(json.dumps(event), flush=True)


class Task:
    """A task directory and the unit at work."""

    def __init__(self, folder):
        self.folder, self.unit = folder, 0

    def file(self, name):
        """A path for a file that the unit puts out."""
        return os.path.join(self.folder, "out", f"{self.unit:05}_{name}")


def work(folder):
    """Does a task: each unit is delivered, or has failed."""
    with open(os.path.join(folder, "params.json"), encoding="utf-8") as file:
        asked = json.load(file)
    if asked["kind"] not in STAGES:
        raise ValueError(f"there is no stage {asked['kind']}")
    definition, function = STAGES[asked["kind"]]
    if asked["version"] != definition["version"]:
        raise ValueError(f"asked for version {asked['version']}, this is {definition['version']}")
    with pa.OSFile(os.path.join(folder, "in.arrow")) as file:
        rows = pa.ipc.open_file(file).read_all().to_pylist()
    units = [[] for _ in asked["keys"]]
    for row in rows:
        units[row.pop("_unit")].append(row)
    task, done = Task(folder), []
    for task.unit, unit in enumerate(units):
        try:
            empty = [name for row in unit for name, value in row.items() if value is None]
            if empty:
                raise ValueError(f"column `{empty[0]}` holds no value")
            # a unit without rows has one that says so
            done += [{"_unit": task.unit, **row} for row in function(unit, asked["params"], task)] or [
                {"_unit": task.unit, "_of": -1}
            ]
        except Exception as error:
            say(event="failed", unit=task.unit, error=f"{type(error).__name__}: {error}")
        if len(units) > 1:
            say(event="progress", done=task.unit + 1, total=len(units))
    columns = {"_unit": pa.int64(), "_of": pa.int64()}
    columns |= {column["name"]: arrow(column["type"]) for column in definition["writes"]}
    part = os.path.join(folder, "out.00000.arrow")
    table = pa.Table.from_pylist(done, schema=pa.schema(columns.items()))
    with pa.ipc.new_file(part + ".tmp", table.schema) as file:
        file.write_table(table)
    os.rename(part + ".tmp", part)
    say(event="part", file="out.00000.arrow")


def main():
    if sys.argv[1:] == ["describe"]:
        stages = [definition for definition, _ in STAGES.values()]
        software = {"pyarrow": pa.__version__}
        print(json.dumps({"protocol": 1, "provider": "words", "version": VERSION, "software": software, "stages": stages}))
    elif sys.argv[1:] == ["worker"]:
        for line in sys.stdin:
            try:
                work(line.rstrip("\n"))
            except Exception as error:
                say(event="failed", unit=None, error=f"{type(error).__name__}: {error}")
            say(event="done")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
