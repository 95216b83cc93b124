"""Total variation distance (f-DISTILL, arXiv 2307.15190)."""

import torch
import torch.nn.functional as F

from authors import in_float64
from shared import kept, logit_pairs, rows

KINKS = ["student_is_teacher"]


def cases():
    return [(name, {"temperature": t}, inputs) for name, inputs, t in logit_pairs("tvd")]


@rows
def loss(config, inputs):
    t = config["temperature"]
    student, teacher = F.softmax(inputs["student_logits"] / t, -1), F.softmax(inputs["teacher_logits"] / t, -1)
    # The probability that has to move: what the teacher has more of.
    return t**2 * ((teacher - student).abs().sum(-1) / 2)


def authors(authors, config, inputs):
    t = config["temperature"]
    student, teacher = kept(inputs, "student_logits", "teacher_logits")
    distillkit = authors.load("DistillKit", "distillkit/lossfuncs/tvd.py", "dense_tvd")["dense_tvd"]
    distillm = authors.load("distillm", "distillm/losses.py", "tv_distance")["tv_distance"]
    labels = torch.zeros(student.shape[:-1], dtype=torch.long)
    with in_float64():
        total = distillkit(student[None], teacher[None], temperature=t)
        mean = distillm(student / t, teacher / t, {"label": labels})
    return [
        ("DistillKit", "dense_tvd / rows * temperature^2", t**2 * total / len(student)),
        ("distillm", "tv_distance * temperature^2", t**2 * mean),
    ]
