"""DataChain, the row-level anchor: three functions over so many rows with `delta=True`, so that only changed rows are computed.

    datachain_rows.py source N CHANGED    makes a new version of the source, with so many rows changed
    datachain_rows.py run                 computes what is new; prints how many times each of the functions was called
"""
import os
import sys

os.environ["DATACHAIN_ROOT_DIR"] = os.path.abspath("datachain")
os.environ["DO_NOT_TRACK"] = "1"

import datachain as dc

calls = {"a": 0, "b": 0, "c": 0}


def source(count, changed):
    values = [i + (1 if i < changed else 0) for i in range(count)]
    dc.read_values(id=list(range(count)), value=values, in_memory=False).save("src")


def add(name, amount):
    def step(value):
        calls[name] += 1
        return value + amount

    return step


def run():
    chain = dc.read_dataset("src", delta=True, delta_on="id", delta_compare="value")
    chain = chain.map(add("a", 1), params=["value"], output={"a": int})
    chain = chain.map(add("b", 2), params=["a"], output={"b": int})
    chain.map(add("c", 3), params=["b"], output={"c": int}).save("out")
    # its progress bars stand before, without an end of line
    print()
    print(*calls.values())


if sys.argv[1] == "source":
    source(int(sys.argv[2]), int(sys.argv[3]))
else:
    run()
