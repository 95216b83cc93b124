"""Answers cases with PyTorch: one line of words in, one line of JSON out. driver.py asks, and says what the words are.

    MODE loss NAME ROWS CLASSES eager|compiled
    MODE floor ROWS CLASSES
    MODE linear jsd|kd FORM TOKENS HIDDEN VOCABULARY
    MODE step BATCH eager|channels_last|compiled

MODE is `warm` (one step, which compiles), `time:SECONDS` (steps for so long) or `peak` (one step in this process, with
the growth of its memory; a step before it where the form is compiled).
"""

import json
import os
import sys
import traceback

import torch

import linear
import losses
import step
from inputs import Linear, Logits
from measure import peak, visit


class Steps:
    """The steps of the inputs that are held now; other inputs take their place, so that only one size is in memory."""

    def __init__(self):
        self.inputs, self.key, self.steps = None, None, {}

    def get(self, words: list):
        kind, arguments = words[0], words[1:]
        sizes = tuple(int(word) for word in arguments if word.isdigit())
        if self.key != (kind, sizes):
            self.inputs, self.key, self.steps = None, (kind, sizes), {}
            if kind in ("loss", "linear"):
                self.inputs = (Logits if kind == "loss" else Linear)(*sizes)
        name = " ".join(words)
        if name not in self.steps:
            self.steps[name] = self.prepare(kind, arguments, sizes)
        return self.steps[name]

    def prepare(self, kind, arguments, sizes):
        if kind == "loss":
            return losses.prepare(arguments[0], self.inputs, arguments[-1] == "compiled")
        if kind == "floor":
            return losses.prepare_floor(*sizes)
        if kind == "linear":
            return linear.prepare(arguments[0], arguments[1], self.inputs)
        if kind == "step":
            return step.prepare(sizes[0], arguments[-1])
        raise ValueError(f"no case `{kind}`")


def answer(steps: Steps, line: str) -> dict:
    mode, *words = line.split()
    call = steps.get(words)
    if mode == "warm":
        call()
        return {}
    if mode == "peak":
        if any("compiled" in word for word in words):
            call()
        return peak(call)
    return visit(call, float(mode.removeprefix("time:")))


def main():
    # Whatever else writes to the standard output goes to the standard error.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    # One compiled form for each size: a size that may vary gives slower code.
    torch._dynamo.config.recompile_limit = 64
    steps = Steps()
    for line in sys.stdin:
        try:
            result = answer(steps, line)
        except Exception:
            result = {"error": traceback.format_exc()}
        print(json.dumps({"case": line.strip()} | result), file=answers)


if __name__ == "__main__":
    main()
