"""Measures our side and PyTorch's in turn, in one run, and prints the tables of docs/performance.md.

Every variant is a process that answers one case a line (worker.py, and src/bin/vs_pytorch on our side). A case goes to
each of its variants once to warm up, and then some times round all of them; a visit is as many steps as fit into
`--seconds`, one at least. The time of a case is the shortest step of all visits. What both sides compute must agree.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import machine
import tables

HERE = Path(__file__).resolve().parent
# A heap that gives no buffer back to the system, so that a step finds its pages in place.
HEAP = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
LOSSES = ("kd", "reverse_kl", "jsd", "skew_kl", "kd_cross_entropy", "dkd", "kd_sparse")
SIZES = ((128, 100), (128, 1000), (1024, 32000), (256, 151936))
# Linear distillation: tokens, hidden, vocabulary. Training step: batch.
LINEAR, BATCH = (2048, 576, 49152), 128
QUICK_LINEAR, QUICK_BATCH = (256, 64, 4096), 16
# Tokens in a chunk of Liger's form: its default, and one that takes less memory.
CHUNKS = (1024, 256)
VISITS = {"losses": 5, "linear": 3, "step": 5}


class Worker:
    """A process that answers cases."""

    def __init__(self, command: list, environment: dict):
        self.command = command
        self.process = subprocess.Popen(
            command, env=os.environ | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def ask(self, line: str) -> dict:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{' '.join(self.command)} ended with {self.process.wait()} at `{line}`")
        answer = json.loads(answer)
        if "error" in answer:
            raise SystemExit(f"{' '.join(self.command)} failed at `{line}`: {answer['error']}")
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Bench:
    """The variants by name (`flex`, `libtorch`; `eager`, `heap`, `compiled`), and every answer that they gave."""

    def __init__(self, arguments):
        self.arguments, self.answers, self.disagreements, self.running = arguments, [], [], {}
        ours = [(device, [arguments.ours, "--device", device], {}) for device in arguments.devices]
        python = [sys.executable, str(HERE / "worker.py")]
        theirs = [("eager", python, {}), ("heap", python, HEAP), ("compiled", python, {})]
        ours_kept = [(f"{device}_heap", command, HEAP) for device, command, _ in ours]
        self.variants = {name: (command, environment) for name, command, environment in ours + ours_kept + theirs}

    def worker(self, name: str) -> Worker:
        if name not in self.running:
            self.running[name] = Worker(*self.variants[name])
        return self.running[name]

    def close(self):
        for worker in self.running.values():
            worker.close()
        self.running = {}

    def times(self, cells: dict, visits: int) -> dict:
        """The seconds of each cell, given as name -> (variant, case)."""
        answers = {cell: [] for cell in cells}
        for variant, case in cells.values():
            self.worker(variant).ask(f"warm {case}")
        for _ in range(visits):
            for cell, (variant, case) in cells.items():
                answer = self.worker(variant).ask(f"time:{self.arguments.seconds} {case}")
                answers[cell].append(answer)
                self.answers.append({"variant": variant} | answer)
        self.compare(cells, answers)
        best = {cell: min(answer["seconds"] for answer in given) for cell, given in answers.items()}
        shown = ", ".join(f"{cell} {seconds * 1e3:.3g} ms" for cell, seconds in best.items())
        print(f"{next(iter(cells.values()))[1]}: {shown}", file=sys.stderr, flush=True)
        return best

    def compare(self, cells: dict, answers: dict):
        """Notes where the loss, or the first element of the gradient, differs from that of the last cell."""
        reference = answers[next(reversed(answers))][-1]
        for field, tolerance in (("loss", 3e-3), ("gradient", 1e-2)):
            for cell, given in answers.items():
                value, expected = given[-1].get(field), reference.get(field)
                if value is None or expected is None:
                    continue
                if not abs(value - expected) <= tolerance * abs(expected) + 1e-11:
                    self.disagreements.append(f"{cells[cell]}: {field} {value}, expected {expected}")

    def peak(self, variant: str, case: str) -> int:
        """The growth of the resident memory during a step, in bytes, in a process of its own."""
        worker = Worker(*self.variants[variant])
        answer = worker.ask(f"peak {case}")
        worker.close()
        self.answers.append({"variant": variant} | answer)
        return answer["peak_bytes"]


def losses(bench: Bench, visits: int) -> str:
    sizes = SIZES[:2] if bench.arguments.quick else SIZES
    parts = []
    for rows, classes in sizes:
        size = f"{rows} {classes}"
        floor = bench.times({"ours": ("flex", f"floor {size}"), "theirs": ("eager", f"floor {size}")}, visits)
        measured = {}
        for loss in LOSSES:
            cells = {}
            for device in bench.arguments.devices:
                cells[f"{device} kept"] = (device, f"loss {loss} {size} kept")
                if loss != "kd_sparse":
                    cells[f"{device} handed over"] = (device, f"loss {loss} {size} handed_over")
                teacher = "kept" if loss == "kd_sparse" else "handed_over"
                cells[f"{device} heap"] = (f"{device}_heap", f"loss {loss} {size} {teacher}")
            for variant in ("compiled", "heap", "eager"):
                form = "compiled" if variant == "compiled" else "eager"
                cells[variant] = (variant, f"loss {loss} {size} {form}")
            measured[loss] = bench.times(cells, visits)
        parts.append(tables.losses(rows, classes, min(floor.values()), measured, bench.arguments.devices))
    return "\n\n".join(parts)


def linear(bench: Bench, visits: int) -> str:
    sizes = QUICK_LINEAR if bench.arguments.quick else LINEAR
    size = " ".join(map(str, sizes))
    parts = []
    for loss in ("jsd", "kd"):
        cells = {}
        for device in bench.arguments.devices:
            for form in ("products", "chunked", "unchunked"):
                cells[f"{device} {form}"] = (device, f"linear {loss} {form} {size}")
        cells["eager products"] = ("eager", f"linear {loss} products {size}")
        for chunk in CHUNKS:
            cells[f"compiled liger@{chunk}"] = ("compiled", f"linear {loss} liger_compiled@{chunk} {size}")
        cells["compiled naive"] = ("compiled", f"linear {loss} naive_compiled {size}")
        for variant in ("heap", "eager"):
            cells[f"{variant} liger@{CHUNKS[0]}"] = (variant, f"linear {loss} liger@{CHUNKS[0]} {size}")
            cells[f"{variant} naive"] = (variant, f"linear {loss} naive {size}")
        times = bench.times(cells, visits)
        # What the workers hold is given back: a peak is measured in a process that is alone.
        bench.close()
        peaks = {
            cell: bench.peak(*cells[cell])
            for cell in cells
            if not cell.startswith("heap") and not cell.endswith("products")
        }
        parts.append(tables.linear(loss, sizes, times, peaks))
    return "\n\n".join(parts)


def step(bench: Bench, visits: int) -> str:
    batch = QUICK_BATCH if bench.arguments.quick else BATCH
    cells = {device: (device, f"step {batch}") for device in bench.arguments.devices}
    for variant in ("compiled", "heap", "eager"):
        cells[variant] = (variant, f"step {batch} {'compiled' if variant == 'compiled' else 'eager'}")
    cells["channels_last"] = ("eager", f"step {batch} channels_last")
    cells["heap channels_last"] = ("heap", f"step {batch} channels_last")
    times = bench.times(cells, visits)
    parts = {}
    for device in bench.arguments.devices:
        visited = [answer["parts"] for answer in bench.answers if answer["variant"] == device and answer.get("parts")]
        parts[device] = {name: min(visit[name] for visit in visited) for name in visited[0]}
    return tables.step(batch, times, parts)


SECTIONS = {"losses": losses, "linear": linear, "step": step}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ours", required=True, help="the binary vs_pytorch")
    parser.add_argument("--devices", default="flex", help="comma-separated: flex, libtorch")
    parser.add_argument("--only", choices=SECTIONS, help="one part of the tables")
    parser.add_argument("--quick", action="store_true", help="small sizes, two visits: to see that it runs")
    parser.add_argument("--visits", type=int, help="rounds of visits to all variants of a case (default 5, linear 3; 2 with --quick)")
    parser.add_argument("--seconds", type=float, default=0.2, help="length of a visit (default 0.2)")
    parser.add_argument("--command", default="scripts/bench-vs-pytorch", help="what the tables say they come from")
    parser.add_argument("--write", type=Path, help="the file whose marked parts the tables replace")
    parser.add_argument("--raw", type=Path, help="where every answer of the workers goes, as JSON")
    arguments = parser.parse_args()
    arguments.devices = arguments.devices.split(",")
    if "flex" not in arguments.devices:
        parser.error("`--devices` must hold flex, which the floor is measured with")

    bench = Bench(arguments)
    with contextlib.closing(bench):
        for name in [arguments.only] if arguments.only else SECTIONS:
            visits = arguments.visits or (2 if arguments.quick else VISITS[name])
            table = SECTIONS[name](bench, visits)
            bench.close()
            text = f"{table}\n\n{machine.sentence(arguments, visits)}"
            print(f"{text}\n", flush=True)
            if arguments.write and not bench.disagreements:
                tables.replace(arguments.write, name, text)
    if arguments.raw:
        arguments.raw.write_text(json.dumps({"machine": machine.facts(), "answers": bench.answers}, indent=1) + "\n")
    if bench.disagreements:
        sys.exit("the two sides do not compute the same:\n" + "\n".join(bench.disagreements))


if __name__ == "__main__":
    main()
