"""FitNets (Romero 2015, arXiv 1412.6550)."""

import torch.nn.functional as F

from shared import features

PER_SAMPLE = "mean over the elements of each sample"


def cases():
    shapes = [
        ("rows", (4, 6)),
        ("batch_of_one", (1, 5)),
        ("tokens", (2, 3, 5)),
        ("images", (3, 2, 4, 5)),
        ("large", (2, 9)),
    ]
    return [(n, {}, features(f"hint/{n}", s, scale=100.0 if n == "large" else 1.0)) for n, s in shapes]


def loss(config, inputs):
    student, teacher = inputs["student"], inputs["teacher"]
    return F.mse_loss(student, teacher), F.mse_loss(student, teacher, reduction="none").flatten(1).mean(1)


def authors(authors, config, inputs):
    loss = authors.load("RepDistiller", "distiller_zoo/FitNet.py", "HintLoss")["HintLoss"]
    return [("RepDistiller", "HintLoss", loss()(inputs["student"], inputs["teacher"]))]
