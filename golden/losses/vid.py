"""Variational information distillation (Ahn 2019, arXiv 1904.05835)."""

import math

import torch
import torch.nn.functional as F

from shared import bell, features

PER_SAMPLE = "mean over the elements of each sample"
LAYERS = ("first", "second", "third")


def cases():
    shapes = [
        ("same_size", (3, 2, 4, 4), (3, 3, 4, 4), 5, 1.0),
        ("larger_student", (2, 3, 8, 8), (2, 4, 4, 4), 4, 1.0),
        ("larger_teacher", (2, 4, 3, 3), (2, 3, 6, 6), 3, 1.0),
        ("uneven", (2, 3, 7, 7), (2, 2, 4, 4), 3, 1.0),
        ("not_square", (2, 3, 3, 5), (2, 4, 3, 5), 2, 1.0),
        ("batch_of_one", (1, 3, 3, 3), (1, 2, 3, 3), 2, 1.0),
        ("scale_30", (3, 2, 3, 3), (3, 4, 3, 3), 4, 30.0),
    ]
    found = []
    for name, student, teacher, hidden, scale in shapes:
        inputs = features(f"vid/{name}", student, teacher, scale)
        sizes = zip([hidden, hidden, teacher[1]], [student[1], hidden, hidden], strict=True)
        for layer, size in zip(LAYERS, sizes, strict=True):
            inputs[f"parameter.{layer}.weight"] = bell(f"vid/{name}/{layer}", (*size, 1, 1), 0.5)
        # Variances from nearly none to large.
        inputs["parameter.scale"] = bell(f"vid/{name}/scale", (teacher[1],), 3.0)
        config = {"student_channels": student[1], "teacher_channels": teacher[1], "hidden_channels": hidden}
        found.append((name, config, inputs))
    return found


def loss(config, inputs):
    student, teacher = inputs["student"], inputs["teacher"]
    side = min(student.shape[2], teacher.shape[2])
    if student.shape[2] != teacher.shape[2]:
        student, teacher = (F.adaptive_avg_pool2d(f, (side, side)) for f in (student, teacher))
    first, second, third = (inputs[f"parameter.{layer}.weight"][:, :, 0, 0] for layer in LAYERS)
    hidden = torch.einsum("oc,nchw->nohw", first, student).clamp(min=0)
    hidden = torch.einsum("oc,nchw->nohw", second, hidden).clamp(min=0)
    mean = torch.einsum("oc,nchw->nohw", third, hidden)
    variance = F.softplus(inputs["parameter.scale"], threshold=1e9) + 1e-5
    # The negative logarithm of the Gaussian, without its constant.
    likelihood = torch.distributions.Normal(mean, variance.sqrt()[None, :, None, None]).log_prob(teacher)
    per_sample = (-likelihood - math.log(2 * math.pi) / 2).flatten(1).mean(1)
    return per_sample.mean(), per_sample


def authors(authors, config, inputs):
    import numpy as np

    weights = [inputs[f"parameter.{layer}.weight"] for layer in LAYERS]
    student, teacher = inputs["student"], inputs["teacher"]
    code = authors.load("RepDistiller", "distiller_zoo/VID.py", "VIDLoss", np=np)["VIDLoss"]
    module = code(config["student_channels"], config["hidden_channels"], config["teacher_channels"]).double()
    named = {f"regressor.{2 * i}.weight": weight for i, weight in enumerate(weights)}
    named["log_scale"] = inputs["parameter.scale"]
    value = torch.func.functional_call(module, named, (student, teacher))
    vid_loss = authors.load("mdistiller", "mdistiller/distillers/VID.py", "vid_loss")["vid_loss"]

    def regressor(x):
        return torch.func.functional_call(module.regressor, {n.removeprefix("regressor."): t for n, t in named.items() if n != "log_scale"}, (x,))

    return [
        ("RepDistiller", "VIDLoss", value),
        ("mdistiller", "vid_loss", vid_loss(regressor, inputs["parameter.scale"], student, teacher)),
    ]
