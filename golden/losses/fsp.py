"""Flow of the solution procedure, FSP (Yim 2017, CVPR)."""

import numpy as np
import torch
import torch.nn.functional as F

from shared import bell

PER_SAMPLE = "mean over the pairs of a channel of the first and one of the second stage"


def cases():
    shapes = [
        # name, student's first and second stage, teacher's
        ("default", (3, 2, 3, 3), (3, 4, 3, 3), (3, 2, 3, 3), (3, 4, 3, 3)),
        ("halved", (2, 2, 4, 4), (2, 3, 2, 2), (2, 2, 4, 4), (2, 3, 2, 2)),
        ("other_sizes", (2, 2, 6, 6), (2, 3, 3, 3), (2, 2, 4, 4), (2, 3, 2, 2)),
        ("growing", (2, 3, 2, 2), (2, 2, 4, 4), (2, 3, 3, 3), (2, 2, 3, 3)),
        ("uneven", (2, 2, 5, 7), (2, 3, 2, 3), (2, 2, 5, 4), (2, 3, 3, 4)),
        ("batch_of_one", (1, 3, 2, 2), (1, 2, 2, 2), (1, 3, 2, 2), (1, 2, 2, 2)),
        ("scale_30", (2, 2, 2, 3), (2, 3, 2, 3), (2, 2, 2, 3), (2, 3, 2, 3)),
    ]
    names = "student_first", "student_second", "teacher_first", "teacher_second"
    found = []
    for name, *stages in shapes:
        scale = 30.0 if name == "scale_30" else 1.0
        found.append((name, {}, {n: bell(f"fsp/{name}/{n}", s, scale) for n, s in zip(names, stages, strict=True)}))
    return found


def flow(first, second):
    size = [min(sides) for sides in zip(first.shape[2:], second.shape[2:], strict=True)]
    first, second = F.adaptive_max_pool2d(first, size), F.adaptive_max_pool2d(second, size)
    return torch.einsum("nchw,ndhw->ncd", first, second) / (size[0] * size[1])


def flows(inputs, of_stages):
    return [of_stages(inputs[f"{side}_first"], inputs[f"{side}_second"]) for side in ("student", "teacher")]


def loss(config, inputs):
    student, teacher = flows(inputs, flow)
    per_sample = (student - teacher).pow(2).mean((1, 2))
    return per_sample.mean(), per_sample


def authors(authors, config, inputs):
    path, pool = "torchdistill/losses/mid_level.py", F.adaptive_max_pool2d
    load = authors.load("torchdistill", path, "compute_fsp_matrix", adaptive_max_pool2d=pool)
    value = F.mse_loss(*flows(inputs, load["compute_fsp_matrix"]))
    found = [("torchdistill", "compute_fsp_matrix, then mse_loss", value)]
    if all(inputs[f"{s}_first"].shape[2:] == inputs[f"{s}_second"].shape[2:] for s in ("student", "teacher")):
        code = authors.load("RepDistiller", "distiller_zoo/FSP.py", "FSP", np=np)["FSP"]
        stages = [[inputs[f"{s}_first"], inputs[f"{s}_second"]] for s in ("student", "teacher")]
        value = code([f.shape for f in stages[0]], [f.shape for f in stages[1]])(*stages)[0]
        found.append(("RepDistiller", "FSP", value))
    return found
