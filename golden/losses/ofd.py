"""A comprehensive overhaul of feature distillation, OFD (Heo 2019, arXiv 1904.01866).

`fixed_norm_weight` and `fixed_norm_bias` are those of the teacher's batch norm, from which the margins come.
"""

import math
from types import SimpleNamespace

import numpy as np
import torch

from shared import features

PER_SAMPLE = "sum over the elements of each sample"


def cases():
    shapes = [
        ("default", (2, 4, 3, 3), [1.0, 0.5, 0.25, 2.0], [0.0, 0.25, -0.5, 1.0]),
        ("negative_weights", (2, 3, 2, 3), [-1.0, -0.25, 0.75], [0.5, -0.25, 0.0]),
        # Channels that are hardly ever negative, and one that nearly always is.
        ("far_from_zero", (2, 4, 2, 2), [0.25, 0.25, 0.5, 0.125], [1.0, 0.75, 1.5, -2.0]),
        ("almost_never_negative", (2, 3, 2, 2), [0.5, 1.0, 0.25], [1.5, 3.09375, 0.8125]),
        ("batch_of_one", (1, 2, 3, 2), [0.75, 1.5], [0.125, -0.375]),
        ("scale_30", (2, 3, 2, 2), [20.0, 30.0, 10.0], [3.0, -5.0, 0.5]),
    ]
    found = []
    for name, shape, weight, bias in shapes:
        inputs = features(f"ofd/{name}", shape, scale=30.0 if name == "scale_30" else 1.0)
        inputs |= {"fixed_norm_weight": np.array(weight), "fixed_norm_bias": np.array(bias)}
        found.append((name, {}, inputs))
    return found


def margins(weight, bias):
    """The mean of a normal variable below zero; the authors take -3 deviations where it hardly ever is."""
    deviation = weight.abs()
    below = torch.special.ndtr(-bias / deviation)
    density = torch.exp(torch.distributions.Normal(0.0, 1.0).log_prob(bias / deviation))
    return torch.where(below > 0.001, bias - deviation * density / below, -3 * deviation)


def loss(config, inputs):
    student, teacher = inputs["student"], inputs["teacher"]
    margin = margins(inputs["fixed_norm_weight"], inputs["fixed_norm_bias"])
    target = torch.maximum(teacher, margin[None, :, None, None])
    # The partial distance: nothing where both say "no" and the student says it louder.
    counts = ~((student <= target) & (target <= 0))
    per_sample = torch.where(counts, (student - target).pow(2), 0.0).flatten(1).sum(1)
    return per_sample.mean(), per_sample


def authors(authors, config, inputs):
    # SciPy's normal distribution function is all that the margins use of it.
    norm = SimpleNamespace(cdf=lambda x: 0.5 * math.erfc(-x / math.sqrt(2)))
    names = "distillation_loss", "get_margin_from_BN"
    code = authors.load("overhaul-distillation", "CIFAR-100/distiller.py", *names, norm=norm)
    weight, bias = inputs["fixed_norm_weight"], inputs["fixed_norm_bias"]
    state = SimpleNamespace(weight=SimpleNamespace(data=weight), bias=SimpleNamespace(data=bias))
    float_tensor, torch.FloatTensor = torch.FloatTensor, torch.DoubleTensor  # they round the margins to float32
    try:
        margin = code["get_margin_from_BN"](state)
    finally:
        torch.FloatTensor = float_tensor
    value = code["distillation_loss"](inputs["student"], inputs["teacher"], margin[None, :, None, None])
    return [("overhaul-distillation", "distillation_loss / batch", value / len(inputs["student"]))]
