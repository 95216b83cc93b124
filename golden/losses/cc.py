"""Correlation congruence, CCKD (Peng 2019, arXiv 1904.01802)."""

import math

import torch

from shared import features

PER_SAMPLE = "mean over the sample's row of the matrix of correlations; `Neighbours`: batch / (batch - 1) times the pair"
GAUSSIAN = {"kernel": {"Gaussian": {"gamma": 0.4, "order": 2}}}


def cases():
    bilinear, neighbours = {"kernel": "Bilinear"}, {"kernel": "Neighbours"}
    shapes = [
        ("default", GAUSSIAN, (5, 4), (5, 4)),
        ("wider_teacher", GAUSSIAN, (4, 3), (4, 7)),
        ("order_1", {"kernel": {"Gaussian": {"gamma": 0.4, "order": 1}}}, (4, 3), (4, 5)),
        ("order_5_gamma_1.5", {"kernel": {"Gaussian": {"gamma": 1.5, "order": 5}}}, (4, 3), (4, 5)),
        ("images", GAUSSIAN, (3, 2, 3, 2), (3, 4, 2, 2)),
        ("batch_of_one", {"kernel": "Bilinear"}, (1, 4), (1, 3)),
        ("scale_30", GAUSSIAN, (4, 5), (4, 5)),
        ("bilinear", bilinear, (5, 3), (5, 6)),
        ("bilinear_scale_30", bilinear, (3, 4), (3, 4)),
        ("bilinear_images", bilinear, (3, 2, 2, 3), (3, 1, 4, 2)),
        ("neighbours", neighbours, (5, 4), (5, 4)),
        ("neighbours_of_two", neighbours, (2, 6), (2, 6)),
    ]
    scale = {"scale_30": 30.0, "bilinear_scale_30": 30.0}
    return [(name, c, features(f"cc/{name}", s, t, scale.get(name, 1.0))) for name, c, s, t in shapes]


def unit(features):
    return features / features.norm(dim=1, keepdim=True)


def loss(config, inputs):
    student, teacher = inputs["student"].flatten(1), inputs["teacher"].flatten(1)
    kernel, n = config["kernel"], len(student)
    if kernel == "Neighbours":
        apart = (student - teacher).abs()
        pairs = torch.einsum("nc,nc->n", apart[:-1], apart[1:])
        per_sample = torch.cat([pairs, pairs[:1] * 0]) * n / (n - 1)
        return per_sample.mean(), per_sample
    correlations = []
    for features in (student, teacher):
        if kernel == "Bilinear":
            correlations.append(torch.einsum("ic,jc->ij", features, features))
            continue
        gamma, order = kernel["Gaussian"]["gamma"], kernel["Gaussian"]["order"]
        cosine = torch.einsum("ic,jc->ij", unit(features), unit(features))
        # exp(-gamma |x - y|^2) = exp(-2 gamma) exp(2 gamma x y) of unit vectors, the second up to the order.
        series = sum((2 * gamma * cosine) ** p / math.factorial(p) for p in range(order + 1))
        correlations.append(math.exp(-2 * gamma) * series)
    per_sample = (correlations[0] - correlations[1]).pow(2).mean(1)
    return per_sample.mean(), per_sample


def authors(authors, config, inputs):
    student, teacher = inputs["student"].flatten(1), inputs["teacher"].flatten(1)
    if config["kernel"] == "Neighbours":
        neighbours = authors.load("RepDistiller", "distiller_zoo/CC.py", "Correlation")["Correlation"]
        return [("RepDistiller", "Correlation", neighbours()(student, teacher))]
    torchdistill = authors.load("torchdistill", "torchdistill/losses/mid_level.py", "CCKDLoss")["CCKDLoss"]
    if config["kernel"] == "Bilinear":
        what, kernel = "CCKDLoss, squared", {"type": "bilinear"}
    else:
        what, own = "CCKDLoss of unit vectors, squared", config["kernel"]["Gaussian"]
        kernel = {"type": "gaussian", "gamma": own["gamma"], "max_p": own["order"]}
        student, teacher = unit(student), unit(teacher)
    code = torchdistill("linear", "linear", kernel, "sum")
    distance = code({"linear": {"output": student}}, {"linear": {"output": teacher}})
    return [("torchdistill", what, distance**2 / len(student) ** 2)]
