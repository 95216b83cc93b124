"""Writes `losses/NAME.json` from `losses/NAME.py`: values, per-sample values and gradients. See README.md.

python golden/losses.py [--reference-dir DIR] [--only kd,jsd]

A loss's file holds
    cases() -> [(name of the case, config, inputs)], inputs as numpy arrays
    loss(config, inputs) -> (value, per_sample), from its paper
    authors(authors, config, inputs) -> [(repository, what, value)], optional: the authors' own code
    after(config, inputs) -> {name: tensor}, optional: what a loss with a memory remembers afterwards
    PER_SAMPLE, optional: what a sample's value is, where it is not a row's
    KINKS, optional: cases at a point where the loss has no slope, so that no central difference is taken
    surrogate(config, inputs) -> loss, optional: where the gradient is not the slope of the value (weights that are
        constants to it, a gradient that is reversed), a loss of which it is, at these inputs
Inputs named `student..` and `parameter..` (learned weights) get gradients.
"""

import argparse
import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import torch

from authors import COMMITS, Authors, Missing

FOLDER = Path(__file__).parent / "losses"
ROWS = "one value per row, row-major, masked rows too; the loss is the mean over unmasked rows"
# float64 against float64: a larger difference is a difference in the formula.
AGREE = 1e-9
LEARNING = ("student", "parameter")


def tensors(inputs, dtype=torch.float64):
    """Inputs as tensors; those that learn ask for a gradient."""
    found = {}
    for name, array in inputs.items():
        kind = dtype if array.dtype.kind == "f" else None
        found[name] = torch.tensor(array, dtype=kind).requires_grad_(name.startswith(LEARNING))
    return found


def gradients(value, inputs):
    names = [n for n in inputs if n.startswith(LEARNING)]
    return dict(zip(names, torch.autograd.grad(value, [inputs[n] for n in names], retain_graph=True), strict=True))


def difference(ours, theirs):
    """Largest difference over the largest magnitude of ours (1e-3 at least); infinite if theirs is not finite."""
    ours, theirs = ours.detach().double(), theirs.detach().double()
    if not torch.isfinite(theirs).all():
        return math.inf
    return float((ours - theirs).abs().max() / ours.abs().max().clamp(min=1e-3))


def slope_difference(loss, config, inputs, grad):
    """The gradient along one direction against a central difference of the value."""
    worst = 0.0
    inputs = {name: tensor.detach() for name, tensor in inputs.items()}
    for name in grad:
        direction = torch.tensor(np.sin(1.0 + np.arange(grad[name].numel()))).reshape(grad[name].shape)
        step = 1e-5
        moved = [loss(config, {**inputs, name: inputs[name] + sign * step * direction})[0].detach() for sign in (1, -1)]
        slope = (moved[0] - moved[1]) / (2 * step)
        worst = max(worst, float((slope - (grad[name] * direction).sum()).abs() / (1e-3 + grad[name].abs().max())))
    return worst


def array(data):
    values = data.detach().reshape(-1).tolist()
    return {"shape": list(data.shape), "data": [shortest(v) for v in values]}


def shortest(v):
    """Whole numbers without a point; 12 significant digits otherwise (inputs need fewer and stay exact)."""
    if isinstance(v, bool):
        return int(v)
    return int(v) if float(v).is_integer() and abs(v) < 1e6 else float(f"{v:.12g}")


def load(name):
    """The module `losses/NAME.py`."""
    found = importlib.util.spec_from_file_location(f"losses.{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def against(module, case, arguments, ours, compared, notes):
    """Compares value and gradient with the authors' code; agreements go to `compared`, the rest to `notes`."""
    value, grad = ours
    if not hasattr(module, "authors"):
        return
    try:
        results = module.authors(*arguments)
    except Missing:
        return
    for repository, what, theirs in results:
        slopes = max(difference(grad[n], g) for n, g in gradients(theirs, arguments[-1]).items())
        apart = max(difference(value, theirs), slopes)
        source = (
            f"{repository}@{COMMITS[repository][:12]} {what}" if repository in COMMITS else f"{what} ({repository})"
        )
        if apart <= AGREE:
            compared.setdefault(source, []).append(apart)
        else:
            values = f"value {theirs.item():.6g} against {value.item():.6g}"
            notes.append(f"{case}: {source}: {values}, gradient apart by {slopes:.1e}")


def run(name, authors):
    module = load(name)
    loss = module.loss
    found, compared, notes = [], {}, []
    for case, config, raw in module.cases():
        for values in raw.values():
            assert values.dtype.kind != "f" or (values.astype(np.float32) == values).all(), "not exact in float32"
        inputs = tensors(raw)
        value, per_sample = loss(config, inputs)
        grad = gradients(value, inputs)
        assert all(torch.isfinite(t).all() for t in [value, per_sample, *grad.values()]), case
        smooth = case not in getattr(module, "KINKS", ())
        here = {name: tensor.detach() for name, tensor in inputs.items()}
        sloping = module.surrogate(config, here) if hasattr(module, "surrogate") else loss
        slope = slope_difference(sloping, config, inputs, grad) if smooth else 0.0
        assert slope < 1e-5, f"{name}/{case}: gradient and central difference are {slope:.1e} apart"
        against(module, case, (authors, config, inputs), (value, grad), compared, notes)
        single = tensors(raw, torch.float32)
        low, _ = loss(config, single)
        lost = max(difference(grad[n], g) for n, g in gradients(low, single).items())
        single = f"float32 off by {difference(value, low):.1e}, its gradient by {lost:.1e}"
        print(f"  {name}/{case}: value {value.item():.6g}, {single}")
        expected = {"value": value.item(), "per_sample": [float(f"{v:.15g}") for v in per_sample.tolist()]}
        expected["grad"] = {n: array(g) for n, g in grad.items()}
        if hasattr(module, "after"):
            expected["after"] = {n: array(t) for n, t in module.after(config, inputs).items()}
        encoded = {n: array(t) for n, t in inputs.items()}
        found.append({"name": case, "config": config, "inputs": encoded, "expected": expected})
    reference = f"PyTorch {torch.__version__.split('+')[0]} in float64; "
    sloped = sum(case["name"] not in getattr(module, "KINKS", ()) for case in found)
    if sloped:
        part = "" if sloped == len(found) else f" in {sloped} of {len(found)} cases"
        reference += f"gradients checked by central differences{part}"
    else:
        reference += "gradients that stop inside the loss: no central differences"
    for key, all_apart in compared.items():
        bound = 10.0 ** max(-13, math.ceil(math.log10(max(max(all_apart), 1e-300))))
        reference += f"; {key}: {len(all_apart)} cases, value and gradient within {bound:.0e}"
    return {
        "loss": name,
        "reference": reference,
        "notes": notes,
        "per_sample_rule": getattr(module, "PER_SAMPLE", ROWS),
        "cases": found,
    }


def write(path, document):
    """One case a line, so that a diff shows which case moved."""
    head = {key: value for key, value in document.items() if key != "cases"}
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in document["cases"])
    path.write_text(json.dumps(head, indent=1)[:-2] + ',\n "cases": [\n' + lines + "\n]}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference-dir", help="folder with checkouts of the authors' code (README.md lists them)")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--only", default=",".join(sorted(path.stem for path in FOLDER.glob("*.py"))), help="comma-separated losses")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    authors = Authors(arguments.reference_dir)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.only.split(","):
        document = run(name, authors)
        write(arguments.out / f"{name}.json", document)
        print(f"{name}: {len(document['cases'])} cases. {document['reference']}")
        for note in document["notes"]:
            print(f"  note: {note}")


if __name__ == "__main__":
    main()
