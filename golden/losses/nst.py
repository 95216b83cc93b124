"""Neuron selectivity transfer, NST (Huang 2017, arXiv 1707.01219)."""

import torch
import torch.nn.functional as F

from shared import features

PER_SAMPLE = "the squared maximum mean discrepancy between the sample's two sets of channels"


def cases():
    polynomial, linear = {"kernel": "Polynomial"}, {"kernel": "Linear"}
    shapes = [
        ("default", polynomial, (3, 4, 3, 3), (3, 4, 3, 3)),
        ("wider_teacher", polynomial, (2, 3, 2, 3), (2, 6, 2, 3)),
        ("larger_teacher", polynomial, (2, 3, 2, 2), (2, 4, 4, 4)),
        ("larger_student", polynomial, (2, 2, 5, 5), (2, 3, 3, 3)),
        ("not_square", polynomial, (2, 2, 4, 3), (2, 3, 3, 4)),
        ("batch_of_one", polynomial, (1, 3, 2, 2), (1, 2, 2, 2)),
        ("scale_30", polynomial, (2, 3, 2, 3), (2, 3, 2, 3)),
        ("linear", linear, (3, 4, 3, 2), (3, 2, 3, 2)),
        ("linear_larger_teacher", linear, (2, 3, 2, 2), (2, 4, 4, 4)),
    ]
    return [(n, c, features(f"nst/{n}", s, t, 30.0 if n == "scale_30" else 1.0)) for n, c, s, t in shapes]


def loss(config, inputs):
    size = [min(sides) for sides in zip(inputs["student"].shape[2:], inputs["teacher"].shape[2:], strict=True)]
    pooled = (F.adaptive_avg_pool2d(inputs[side], size) for side in ("student", "teacher"))
    student, teacher = (features.flatten(2) / features.flatten(2).norm(dim=2, keepdim=True) for features in pooled)
    power = {"Linear": 1, "Polynomial": 2}[config["kernel"]]

    def mean_kernel(a, b):
        return torch.stack([(x @ y.T).pow(power).mean() for x, y in zip(a, b, strict=True)])

    per_sample = mean_kernel(teacher, teacher) + mean_kernel(student, student) - 2 * mean_kernel(student, teacher)
    return per_sample.mean(), per_sample


def authors(authors, config, inputs):
    student, teacher = inputs["student"], inputs["teacher"]
    square = student.shape[2] == student.shape[3] and teacher.shape[2] == teacher.shape[3]
    same = student.shape[2:] == teacher.shape[2:]
    if config["kernel"] != "Polynomial" or not (square or same):
        return []
    code = authors.load("RepDistiller", "distiller_zoo/NST.py", "NSTLoss")["NSTLoss"]
    return [("RepDistiller", "NSTLoss", code()([student], [teacher])[0])]
