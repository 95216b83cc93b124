"""Golden values of learning-rate schedules, from PyTorch's own schedulers.

    python3 -m venv .venv
    .venv/bin/pip install torch==2.9.0 numpy==2.4.6
    .venv/bin/python golden/schedules.py        # writes golden/schedules.json

Nothing here is random. Each case holds the arguments and the learning rates that the optimiser saw at steps 0, 1, 2...
PyTorch's rates are a base rate times factors; the cases are written so that base and factors name ours one to one.
"""

import json
import math
import pathlib

import torch
from torch.optim import lr_scheduler as S

assert torch.__version__.split("+")[0] == "2.9.0", torch.__version__


def optimiser(lr):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def rates(lr, make, count):
    """The learning rates at steps 0..count."""
    opt = optimiser(lr)
    scheduler = make(opt)
    out = []
    for index in range(count):
        out.append(float(opt.param_groups[0]["lr"]))
        opt.step()
        if index + 1 < count:
            scheduler.step()
    return out


golden = {"torch": "2.9.0"}

golden["linear"] = [
    {
        "from": lr * start,
        "to": lr * end,
        "steps": steps,
        "values": rates(lr, lambda o: S.LinearLR(o, start_factor=start, end_factor=end, total_iters=steps), steps + 4),
    }
    for lr, start, end, steps in [(0.4, 0.25, 1.0, 7), (2.0, 1.0, 0.125, 5)]
]

golden["polynomial"] = [
    {
        "from": lr,
        "to": 0.0,
        "power": power,
        "steps": steps,
        "values": rates(lr, lambda o: S.PolynomialLR(o, total_iters=steps, power=power), steps + 3),
    }
    for lr, power, steps in [(0.1, 0.9, 9), (3.0, 2.0, 6), (0.5, 1.0, 4)]
]

# Beyond T_max PyTorch's rate rises again, ours holds, so the values end at T_max.
golden["cosine"] = [
    {
        "from": lr,
        "to": low,
        "steps": steps,
        "values": rates(lr, lambda o: S.CosineAnnealingLR(o, T_max=steps, eta_min=low), steps + 1),
    }
    for lr, low, steps in [(0.1, 0.0, 10), (8.0, 1.0, 7), (0.3, 0.01, 3)]
]

golden["cosine_restarts"] = [
    {
        "from": lr,
        "to": low,
        "first_cycle": first,
        "cycle_multiplier": multiplier,
        "values": rates(lr, lambda o: S.CosineAnnealingWarmRestarts(o, T_0=first, T_mult=multiplier, eta_min=low), 40),
    }
    for lr, low, first, multiplier in [(0.1, 0.001, 4, 2), (1.0, 0.0, 5, 1), (0.2, 0.05, 1, 3)]
]

golden["exponential"] = [
    {"from": lr, "rate": rate, "values": rates(lr, lambda o: S.ExponentialLR(o, gamma=rate), 30)}
    for lr, rate in [(0.1, 0.9), (2.0, 0.5)]
]

golden["step_decay"] = [
    {
        "from": lr,
        "factor": factor,
        "every": every,
        "values": rates(lr, lambda o: S.StepLR(o, step_size=every, gamma=factor), 20),
    }
    for lr, factor, every in [(0.1, 0.1, 6), (1.0, 0.7, 1)]
]

golden["multi_step"] = [
    {
        "from": lr,
        "factor": factor,
        "milestones": milestones,
        "values": rates(lr, lambda o: S.MultiStepLR(o, milestones=milestones, gamma=factor), 20),
    }
    for lr, factor, milestones in [(0.1, 0.1, [3, 9, 10]), (0.05, 2.0, [1, 8])]
]

golden["one_cycle"] = [
    {
        "max": peak,
        "steps": steps,
        "pct_start": pct,
        "div_factor": div,
        "final_div_factor": final,
        "values": rates(
            0.1,
            lambda o: S.OneCycleLR(
                o,
                max_lr=peak,
                total_steps=steps,
                pct_start=pct,
                div_factor=div,
                final_div_factor=final,
                anneal_strategy="cos",
                cycle_momentum=False,
            ),
            steps,
        ),
    }
    for peak, steps, pct, div, final in [(0.1, 10, 0.3, 25.0, 1e4), (2.0, 17, 0.45, 10.0, 100.0), (1.0, 4, 0.3, 25.0, 1e4)]
]

golden["warmup_cosine"] = [
    {
        "start_factor": start,
        "warmup": warmup,
        "from": lr,
        "to": low,
        "steps": steps,
        "values": rates(
            lr,
            lambda o: S.SequentialLR(
                o,
                [
                    S.LinearLR(o, start_factor=start, total_iters=warmup),
                    S.CosineAnnealingLR(o, T_max=steps, eta_min=low),
                ],
                milestones=[warmup],
            ),
            warmup + steps + 1,
        ),
    }
    for start, warmup, lr, low, steps in [(0.1, 5, 0.4, 0.02, 8)]
]


def plateau(metrics, **arguments):
    # The base rate is 1 and `eps` is 0, so that the rate is our scale.
    opt = optimiser(1.0)
    scheduler = S.ReduceLROnPlateau(opt, eps=0.0, **arguments)
    scales = []
    for metric in metrics:
        scheduler.step(metric)
        scales.append(float(opt.param_groups[0]["lr"]))
    return {
        "mode": arguments["mode"],
        "factor": arguments["factor"],
        "patience": arguments["patience"],
        "threshold": arguments["threshold"],
        "threshold_mode": arguments["threshold_mode"],
        "cooldown": arguments["cooldown"],
        "min": arguments["min_lr"],
        # JSON has no NaN: null stands for it.
        "metrics": [None if metric != metric else metric for metric in metrics],
        "scales": scales,
    }


NAN = float("nan")
LOSSES = [1.0, 0.9, 0.91, 0.92, 0.9, 0.8999, 0.7, 0.71, 0.72, 0.73, 0.74, 0.75, 0.76, 0.77, 0.5, 0.51, 0.52, 0.53, 0.54]
LOSSES += [NAN, 0.55, 0.49, 0.488, 0.487, 0.486, 0.485, 0.484, 0.483, 0.482, 0.481]
# An accuracy that creeps up in steps about as large as the thresholds, and the loss that is its mirror image.
ACCURACIES = [1 - 0.6 * math.exp(-i / 15) + 0.012 * math.sin(1.7 * i) for i in range(60)]
CREEPING = [1.6 - x for x in ACCURACIES]
# Below 0 a relative threshold asks for less than the best, in PyTorch as here.
NEGATIVE = [-x for x in CREEPING]

golden["plateau"] = [
    plateau(LOSSES, mode="min", factor=0.5, patience=2, threshold=1e-4, threshold_mode="rel", cooldown=0, min_lr=0.0),
    plateau(LOSSES, mode="min", factor=0.1, patience=1, threshold=0.01, threshold_mode="abs", cooldown=2, min_lr=0.002),
    plateau(LOSSES, mode="min", factor=0.7, patience=0, threshold=0.05, threshold_mode="rel", cooldown=1, min_lr=0.1),
    plateau(CREEPING, mode="min", factor=0.5, patience=1, threshold=0.02, threshold_mode="rel", cooldown=0, min_lr=0.0),
    plateau(CREEPING, mode="min", factor=0.5, patience=1, threshold=0.02, threshold_mode="abs", cooldown=1, min_lr=0.0),
    plateau(ACCURACIES, mode="max", factor=0.5, patience=1, threshold=0.02, threshold_mode="rel", cooldown=2, min_lr=0.0),
    plateau(ACCURACIES, mode="max", factor=0.6, patience=2, threshold=0.02, threshold_mode="abs", cooldown=0, min_lr=0.0),
    plateau(NEGATIVE, mode="max", factor=0.6, patience=1, threshold=0.01, threshold_mode="rel", cooldown=0, min_lr=0.0),
]

path = pathlib.Path(__file__).with_suffix(".json")
lines = [f'"torch": "{golden.pop("torch")}"']
for name, cases in golden.items():
    rows = ",\n".join("  " + json.dumps(case) for case in cases)
    lines.append(f'"{name}": [\n{rows}\n]')
path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
print(f"wrote {path}")
