"""Activation boundaries, AB (Heo 2019, arXiv 1811.03233)."""

import torch

from shared import features

PER_SAMPLE = "sum over the elements of each sample"


def cases():
    shapes = [
        ("default", 1.0, (3, 4, 3, 2), 1.0),
        ("margin_0.5", 0.5, (3, 5, 1, 1), 1.0),
        ("margin_2", 2.0, (2, 3, 3, 1), 1.0),
        ("batch_of_one", 1.0, (1, 6, 1, 1), 2.0),
        ("scale_30", 1.0, (4, 7, 1, 1), 30.0),
        ("small", 1.0, (4, 5, 1, 1), 0.1),
    ]
    return [(n, {"margin": margin}, features(f"ab/{n}", shape, scale=scale)) for n, margin, shape, scale in shapes]


def loss(config, inputs):
    student, teacher = inputs["student"], inputs["teacher"]
    active = (teacher > 0).to(student.dtype)
    # Where the teacher is active the student should be above the margin, elsewhere below minus the margin.
    short = active * torch.relu(config["margin"] - student) + (1 - active) * torch.relu(config["margin"] + student)
    per_sample = short.pow(2).flatten(1).sum(1)
    return per_sample.mean(), per_sample


def authors(authors, config, inputs):
    student, teacher = inputs["student"], inputs["teacher"]
    code = authors.load("RepDistiller", "distiller_zoo/AB.py", "ABLoss")["ABLoss"](1, config["margin"])
    path = "torchdistill/losses/mid_level.py"
    pairs = {"only": {"student": "student", "teacher": "teacher"}}
    extract = {"_extract_feature_map": lambda outputs, name: outputs[name]}
    torchdistill = authors.load("torchdistill", path, "AltActTransferLoss", **extract)["AltActTransferLoss"]
    torchdistill = torchdistill(pairs, config["margin"], "mean")
    return [
        ("RepDistiller", "ABLoss * 1000 / 3", code([student], [teacher])[0] * 1000 / 3),
        ("torchdistill", "AltActTransferLoss", torchdistill({"student": student}, {"teacher": teacher})),
    ]
