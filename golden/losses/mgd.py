"""Masked generative distillation (Yang 2022, arXiv 2205.01529)."""

import torch
import torch.nn.functional as F

from shared import bell, features, uniform

PER_SAMPLE = "sum over the elements of each sample"


def cases():
    shapes = [
        ("positions", (2, 3, 4, 4), (2, 1, 4, 4), 0.5, 1.0),
        ("positions_not_square", (2, 2, 3, 5), (2, 1, 3, 5), 0.65, 1.0),
        ("channels", (3, 4, 3, 3), (3, 4, 1, 1), 0.25, 1.0),
        ("each_feature", (2, 3, 3, 3), (2, 3, 3, 3), 0.5, 1.0),
        ("nothing_hidden", (2, 2, 3, 3), (2, 1, 1, 1), 0.0, 1.0),
        ("one_pixel", (2, 3, 1, 1), (2, 3, 1, 1), 0.5, 1.0),
        ("batch_of_one", (1, 3, 4, 3), (1, 1, 4, 3), 0.5, 1.0),
        ("scale_30", (2, 3, 3, 3), (2, 1, 3, 3), 0.5, 30.0),
    ]
    found = []
    for name, shape, visible, share, scale in shapes:
        inputs = features(f"mgd/{name}", shape, None, scale)
        for layer in ("first", "second"):
            inputs[f"parameter.{layer}.weight"] = bell(f"mgd/{name}/{layer}", (shape[1], shape[1], 3, 3), 0.3)
            inputs[f"parameter.{layer}.bias"] = bell(f"mgd/{name}/{layer}/bias", (shape[1],), 0.5)
        count = int(torch.Size(visible).numel())
        inputs["visible_mask"] = (uniform(f"mgd/{name}/visible", count) >= share).reshape(visible)
        found.append((name, {"channels": shape[1]}, inputs))
    return found


def neighbours(layer, inputs, x):
    """A 3x3 convolution as a product with each position's neighbourhood."""
    weight, bias = inputs[f"parameter.{layer}.weight"], inputs[f"parameter.{layer}.bias"]
    around = F.unfold(x, 3, padding=1)
    return (weight.flatten(1) @ around + bias[:, None]).reshape(x.shape)


def loss(config, inputs):
    student = inputs["student"] * inputs["visible_mask"]
    generated = neighbours("second", inputs, neighbours("first", inputs, student).clamp(min=0))
    per_sample = (inputs["teacher"] - generated).pow(2).flatten(1).sum(1)
    return per_sample.mean(), per_sample


def authors(authors, config, inputs):
    """The authors draw what is hidden inside: here `rand` gives numbers below and above their threshold instead."""
    visible = inputs["visible_mask"]
    batch, channels, height, width = inputs["student"].shape
    found = []
    files = {"det": ("det/mmdet/distillation/losses/mgd.py", "FeatureLoss", (batch, 1, height, width))}
    files["cls"] = ("cls/mmcls/distillation/losses/mgd.py", "MGDLoss", (batch, channels, 1, 1))
    for kind, (path, name, shape) in files.items():
        if visible.shape != shape:
            continue
        # Detection hides above 1 - lambda, classification below lambda.
        drawn = torch.where(visible == (kind == "cls"), 0.75, 0.25).double()
        namespace = Drawing(drawn)
        code = authors.load("MGD", path, name, torch=namespace)[name]
        module = code(channels, channels, "mgd", alpha_mgd=1.0, **{"lambda_mgd": 0.5}).double()
        named = {}
        for index, layer in ((0, "first"), (2, "second")):
            for field in ("weight", "bias"):
                named[f"generation.{index}.{field}"] = inputs[f"parameter.{layer}.{field}"]
        arguments = (inputs["student"], inputs["teacher"])
        found.append(("MGD", f"{kind} {name}", torch.func.functional_call(module, named, arguments)))
    return found


class Drawing:
    """torch, whose `rand` gives what it was told."""

    def __init__(self, drawn):
        self.drawn = drawn

    def __getattr__(self, name):
        return getattr(torch, name)

    def rand(self, shape):
        assert tuple(shape) == tuple(self.drawn.shape)
        return self.drawn
