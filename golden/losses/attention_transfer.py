"""Attention transfer (Zagoruyko 2017, arXiv 1612.03928)."""

import torch.nn.functional as F

from shared import features

PER_SAMPLE = "mean over the pixels of each sample"


def cases():
    shapes = [
        ("same_size", (3, 4, 5, 5), (3, 6, 5, 5), 2),
        ("fourth_power", (2, 4, 4, 4), (2, 3, 4, 4), 4),
        ("batch_of_one", (1, 3, 4, 4), (1, 3, 4, 4), 2),
        ("larger_student", (2, 3, 8, 8), (2, 5, 4, 4), 2),
        ("larger_teacher", (2, 3, 4, 4), (2, 2, 8, 8), 2),
        ("larger_student_uneven", (2, 3, 7, 7), (2, 4, 4, 4), 2),
        ("one_pixel", (3, 4, 1, 1), (3, 2, 1, 1), 2),
        ("not_square", (2, 3, 4, 6), (2, 5, 4, 6), 2),
    ]
    return [(n, {"p": p}, features(f"attention_transfer/{n}", s, t)) for n, s, t, p in shapes]


def loss(config, inputs):
    student, teacher = inputs["student"], inputs["teacher"]
    side = min(student.shape[2], teacher.shape[2])
    maps = []
    for features in (student, teacher):
        if features.shape[2] > side:
            features = F.adaptive_avg_pool2d(features, (side, side))
        energy = features.pow(config["p"]).mean(1).flatten(1)
        maps.append(energy / energy.pow(2).sum(1, keepdim=True).sqrt().clamp(min=1e-12))
    per_sample = (maps[0] - maps[1]).pow(2).mean(1)
    return per_sample.mean(), per_sample


def authors(authors, config, inputs):
    student, teacher = inputs["student"], inputs["teacher"]
    loss = authors.load("RepDistiller", "distiller_zoo/AT.py", "Attention")["Attention"]
    found = [("RepDistiller", "Attention", loss(config["p"])([student], [teacher])[0])]
    if config["p"] == 2 and student.shape[2] == teacher.shape[2]:
        original = authors.load("attention-transfer", "utils.py", "at", "at_loss")["at_loss"]
        found.append(("attention-transfer", "at_loss", original(student, teacher)))
    return found
