"""Three steps of PyTorch's SGD, Adam and AdamW from fixed gradients: optimizers.json.

Decoupled decay for SGD, which PyTorch lacks, is AdamW's line before the step: p.mul_(1 - lr * weight_decay).
"""

import json
from pathlib import Path

import torch

from random_numbers import bell

SHAPES = {"weight": (3, 2), "bias": (3,), "gamma": (3,)}
LEARNING_RATES = [0.1, 0.05, 0.2]
DECAY = 0.1


def draw(name):
    """Exact in float32, in which the tests compute."""
    return {field: torch.from_numpy(bell(f"{name}/{field}", shape, 0.5)) for field, shape in SHAPES.items()}


def as_json(tensors):
    return {name: {"shape": list(t.shape), "data": t.detach().flatten().tolist()} for name, t in tensors.items()}


def run(case, initial, gradients):
    parameters = {name: t.clone().requires_grad_() for name, t in initial.items()}
    decayed = list(SHAPES) if case["decays_all"] else ["weight"]
    groups = [
        {"params": [parameters[n] for n in SHAPES if n in decayed], "weight_decay": DECAY},
        {"params": [parameters[n] for n in SHAPES if n not in decayed], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if case["decay"] == "none" or (case["rule"] == "sgd" and case["decay"] == "decoupled"):
        for group in groups:
            group["weight_decay"] = 0.0
    if case["rule"] == "sgd":
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=case["momentum"], nesterov=case["nesterov"])
    else:
        kind = torch.optim.AdamW if case["decay"] == "decoupled" else torch.optim.Adam
        betas = (case["beta_1"], case["beta_2"])
        optimizer = kind(groups, lr=0.1, betas=betas, eps=case["epsilon"])
    after = []
    for rate, gradient in zip(LEARNING_RATES, gradients):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for name, parameter in parameters.items():
            parameter.grad = gradient[name].clone()
        if case["rule"] == "sgd" and case["decay"] == "decoupled":
            with torch.no_grad():
                for name in decayed:
                    parameters[name].mul_(1 - rate * DECAY)
        optimizer.step()
        after.append(as_json(parameters))
    return after


def main():
    initial = draw("optimizers/initial")
    gradients = [draw(f"optimizers/gradient{step}") for step in range(len(LEARNING_RATES))]
    rules = {
        "sgd": {"rule": "sgd", "momentum": 0.0, "nesterov": False},
        "momentum": {"rule": "sgd", "momentum": 0.9, "nesterov": False},
        "nesterov": {"rule": "sgd", "momentum": 0.9, "nesterov": True},
        "adam": {"rule": "adam", "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8},
    }
    cases = []
    for rule, settings in rules.items():
        for decay in ["none", "l2", "decoupled"]:
            for decays_all in [False, True]:
                name = f"{rule}/{decay}" + ("/all" if decays_all else "")
                case = {"name": name, **settings, "decay": decay, "weight_decay": DECAY, "decays_all": decays_all}
                cases.append({**case, "after": run(case, initial, gradients)})
    document = {
        "reference": f"torch.optim {torch.__version__.split('+')[0]}, float64",
        "learning_rates": LEARNING_RATES,
        "initial": as_json(initial),
        "gradients": [as_json(gradient) for gradient in gradients],
        "cases": cases,
    }
    path = Path(__file__).with_name("optimizers.json")
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(f"{path.name}: {len(cases)} cases")


if __name__ == "__main__":
    main()
