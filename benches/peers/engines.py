"""How each engine is told of the graph that bench.py describes. Knows nothing of measuring."""
import json
import os
import shutil
import subprocess

import measure

JOBS = os.environ.get("BENCH_JOBS", "2")


def width(n):
    w = max(8, (n - 1) // 2)
    while 2 * w + (w + 99) // 100 + 1 > n:
        w -= 1
    return w


def stages(n):
    """Yields (name, command, inputs, outputs)."""
    w = width(n)

    def logged(name, body):
        return f"{body} && echo {name} >> ran.log"

    for i in range(w):
        yield f"a{i}", logged(f"a{i}", f"head -n1 in/{i}.txt > a/{i}.txt"), [f"in/{i}.txt"], [f"a/{i}.txt"]
    for i in range(w):
        yield f"b{i}", logged(f"b{i}", f"cp a/{i}.txt b/{i}.txt"), [f"a/{i}.txt"], [f"b/{i}.txt"]
    groups = []
    for j, low in enumerate(range(0, w, 100)):
        members = [f"b/{i}.txt" for i in range(low, min(w, low + 100))]
        groups.append(f"g/{j}.txt")
        yield f"g{j}", logged(f"g{j}", f"cat {' '.join(members)} > g/{j}.txt"), members, [f"g/{j}.txt"]
    yield "out", logged("out", f"cat {' '.join(groups)} > out.txt"), groups, ["out.txt"]


class Engine:
    """A peer whose commands name their files themselves."""

    name = ""
    runs_always = False

    def program(self):
        return measure.find(self.name)

    def input(self, i):
        return f"in/{i}.txt"

    def inputs(self, folder, n):
        for name in ("in", "a", "b", "g"):
            (folder / name).mkdir()
        for i in range(width(n)):
            path = folder / self.input(i)
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"row {i}\n")

    def output(self, folder):
        return (folder / "out.txt").read_text()

    def wipe(self, folder):
        for name in ("a", "b", "g"):
            for path in (folder / name).iterdir():
                path.unlink()
        (folder / "out.txt").unlink()


class Bare(Engine):
    name = "bare"
    runs_always = True

    def program(self):
        return shutil.which("sh")

    def write(self, folder, n):
        lines = (f"sh -c '{command}'\n" for _, command, _, _ in stages(n))
        (folder / "all.sh").write_text("set -e\n" + "".join(lines))

    def command(self):
        return ["sh", "all.sh"]


class Make(Engine):
    name = "make"

    def write(self, folder, n):
        with open(folder / "Makefile", "w") as file:
            file.write("all: out.txt\n.PHONY: all\n.SUFFIXES:\n")
            for _, command, inputs, outputs in stages(n):
                file.write(f"{outputs[0]}: {' '.join(inputs)}\n\t@{command}\n")

    def command(self):
        return [self.program(), "-r", "-s", "-j", JOBS]


class Ninja(Engine):
    name = "ninja"

    def write(self, folder, n):
        with open(folder / "build.ninja", "w") as file:
            file.write("rule r\n  command = $cmd\n")
            for _, command, inputs, outputs in stages(n):
                file.write(f"build {outputs[0]}: r {' '.join(inputs)}\n  cmd = {command}\n")
            file.write("default out.txt\n")

    def command(self):
        return [self.program(), "-j", JOBS, "--quiet"]


class Snakemake(Engine):
    name = "snakemake"

    def write(self, folder, n):
        w = width(n)
        (folder / "Snakefile").write_text(
            """
W=%d
rule all:
    input: "out.txt"
rule a:
    input: "in/{i}.txt"
    output: "a/{i}.txt"
    shell: "head -n1 {input} > {output} && echo a{wildcards.i} >> ran.log"
rule b:
    input: "a/{i}.txt"
    output: "b/{i}.txt"
    shell: "cp {input} {output} && echo b{wildcards.i} >> ran.log"
rule g:
    input: lambda wc: ["b/%%d.txt" %% i for i in range(int(wc.j)*100, min(W, int(wc.j)*100+100))]
    output: "g/{j}.txt"
    shell: "cat {input} > {output} && echo g{wildcards.j} >> ran.log"
rule out:
    input: expand("g/{j}.txt", j=range(%d))
    output: "out.txt"
    shell: "cat {input} > {output} && echo out >> ran.log"
"""
            % (w, (w + 99) // 100)
        )

    def command(self):
        return [self.program(), "-c", JOBS, "-q", "all"]


class Redun(Engine):
    name = "redun"

    def write(self, folder, n):
        (folder / "wf.py").write_text(
            """
import subprocess
from redun import task, File
redun_namespace = "bench"
W = %d
def sh(c): subprocess.run(["/bin/sh", "-c", c], check=True)
@task()
def a(i: int, f: File) -> File:
    sh("head -n1 in/%%d.txt > a/%%d.txt && echo a%%d >> ran.log" %% (i, i, i)); return File("a/%%d.txt" %% i)
@task()
def b(i: int, f: File) -> File:
    sh("cp a/%%d.txt b/%%d.txt && echo b%%d >> ran.log" %% (i, i, i)); return File("b/%%d.txt" %% i)
@task()
def g(j: int, fs: list) -> File:
    sh("cat %%s > g/%%d.txt && echo g%%d >> ran.log" %% (" ".join(f.path for f in fs), j, j)); return File("g/%%d.txt" %% j)
@task()
def out(fs: list) -> File:
    sh("cat %%s > out.txt && echo out >> ran.log" %% " ".join(f.path for f in fs)); return File("out.txt")
@task()
def main() -> File:
    bs = [b(i, a(i, File("in/%%d.txt" %% i))) for i in range(W)]
    return out([g(j, bs[lo:lo+100]) for j, lo in enumerate(range(0, W, 100))])
"""
            % width(n)
        )

    def command(self):
        return [self.program(), "run", "wf.py", "main"]


class Dvc(Engine):
    name = "dvc"

    def write(self, folder, n):
        with open(folder / "dvc.yaml", "w") as file:
            file.write("stages:\n")
            for name, command, inputs, outputs in stages(n):
                file.write(f"  {name}:\n    cmd: {command}\n    deps:\n")
                file.writelines(f"    - {path}\n" for path in inputs)
                file.write("    outs:\n")
                file.writelines(f"    - {path}\n" for path in outputs)
        for words in (["init", "--no-scm", "-q"], ["config", "core.analytics", "false"], ["config", "core.check_update", "false"]):
            subprocess.run([self.program(), *words], cwd=folder, check=True)

    def command(self):
        return [self.program(), "repro", "-q"]


class Effigy(Engine):
    """What both forms share. Its outputs lie in its workspace: wiped are the tables that the last run left."""

    def program(self):
        return measure.find("effigy")

    def command(self):
        return [self.program(), "run", "r.yaml", "--quiet", "--jobs", JOBS]

    def output(self, folder):
        words = [self.program(), "show", "r.yaml", "out", "--json", "--paths"]
        said = subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True).stdout
        with open(json.loads(said)["file"]) as file:
            return file.read()

    def wipe(self, folder):
        for name in ("tables", "runs"):
            shutil.rmtree(folder / ".effigy" / name)


class EffigyStages(Effigy):
    name = "effigy-stages"

    def write(self, folder, n):
        w = width(n)

        def program(name, body, source):
            run = f'"{body} && echo {name} >> ran.log"'
            return f"  {name}: {{ run: {run}, shell: true, from: {source}, grain: whole, writes: {{ file: blob }} }}\n"

        with open(folder / "r.yaml", "w") as file:
            file.write("recipe: r\nstages:\n")
            for i in range(w):
                file.write(f"  i{i}: {{ files: in/{i}.txt }}\n")
                file.write(program(f"a{i}", "head -n1 {file} > {out}/file", f"i{i}"))
                file.write(program(f"b{i}", "cp {file} {out}/file", f"a{i}"))
            groups = range((w + 99) // 100)
            for j in groups:
                members = ", ".join(f"b{i}" for i in range(j * 100, min(w, j * 100 + 100)))
                file.write(f"  in{j}: {{ concat: [{members}] }}\n")
                file.write(program(f"g{j}", "cat {file} > {out}/file", f"in{j}"))
            file.write(f"  all: {{ concat: [{', '.join(f'g{j}' for j in groups)}] }}\n")
            file.write(program("out", "cat {file} > {out}/file", "all"))


class EffigyRows(Effigy):
    name = "effigy-rows"

    def input(self, i):
        return f"in/{i // 100}/{i}.txt"

    def write(self, folder, n):
        def program(body, rest):
            return f'{{ run: "{body} >> ran.log", shell: true, {rest}, writes: {{ file: blob }} }}'

        a = program("head -n1 {file} > {out}/file && echo a{i}", "from: src")
        b = program("cp {file} {out}/file && echo b{i}", "from: a")
        g = program("cat {file} > {out}/file && echo g", "from: b, by: [g], grain: group")
        out = program("cat {file} > {out}/file && echo out", "from: g, grain: whole")
        src = "{ files: 'in/*/*.txt', parse: 'in/{g:i64}/{i:i64}.txt' }"
        text = f"recipe: r\nstages:\n  src: {src}\n  a: {a}\n  b: {b}\n  g: {g}\n  out: {out}\n"
        (folder / "r.yaml").write_text(text)


ENGINES = {
    engine.name: engine
    for engine in (Bare(), Make(), Ninja(), EffigyStages(), EffigyRows(), Snakemake(), Redun(), Dvc())
}
