"""Knowledge distillation with the reused teacher classifier, SimKD (Chen 2022, arXiv 2203.14001)."""

import torch.nn as nn
import torch.nn.functional as F

from shared import features

PER_SAMPLE = "mean over the elements of each sample"


def cases():
    shapes = [
        ("default", (3, 4, 3, 3), (3, 4, 3, 3)),
        ("larger_teacher", (2, 3, 2, 2), (2, 3, 4, 4)),
        ("uneven_teacher", (2, 2, 2, 2), (2, 2, 5, 5)),
        ("larger_student", (2, 3, 6, 6), (2, 3, 3, 3)),
        ("not_square", (2, 2, 3, 2), (2, 2, 4, 5)),
        ("batch_of_one", (1, 3, 2, 2), (1, 3, 2, 2)),
        ("scale_30", (2, 3, 2, 2), (2, 3, 2, 2)),
    ]
    return [(n, {}, features(f"simkd/{n}", s, t, 30.0 if n == "scale_30" else 1.0)) for n, s, t in shapes]


def loss(config, inputs):
    student, teacher = inputs["student"], inputs["teacher"]
    size = [min(sides) for sides in zip(student.shape[2:], teacher.shape[2:], strict=True)]
    student, teacher = F.adaptive_avg_pool2d(student, size), F.adaptive_avg_pool2d(teacher, size)
    return F.mse_loss(student, teacher), F.mse_loss(student, teacher, reduction="none").flatten(1).mean(1)


def authors(authors, config, inputs):
    student, teacher = inputs["student"], inputs["teacher"]
    if any(f.shape[2] != f.shape[3] for f in (student, teacher)):
        return []  # they read only the height
    code = authors.load("SimKD", "models/util.py", "SimKD")["SimKD"](s_n=student.shape[1], t_n=4)
    code.transfer = nn.Identity()  # a connector's work
    student, teacher, _ = code(student, teacher, nn.Identity())
    return [("SimKD", "SimKD.forward, then MSELoss", nn.MSELoss()(student, teacher))]
