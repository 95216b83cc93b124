"""ReviewKD (Chen 2021, arXiv 2104.09044)."""

import torch.nn.functional as F

from shared import features

PER_SAMPLE = "mean over the elements of each sample at each level, levels and stages combined as in the loss"


def cases():
    shapes = [
        ("one_stage", [(2, 3, 8, 8)]),
        ("three_stages", [(2, 3, 8, 8), (2, 4, 4, 4), (2, 5, 1, 1)]),
        ("uneven", [(2, 2, 5, 5), (2, 3, 3, 3), (2, 4, 2, 2)]),
        ("not_square", [(2, 2, 6, 8)]),
        ("batch_of_one", [(1, 3, 6, 6), (1, 3, 1, 1)]),
    ]
    found = []
    for name, stages in shapes:
        inputs = {}
        for i, shape in enumerate(stages):
            both = features(f"review_kd/{name}/{i}", shape)
            inputs |= {f"student_{i}": both["student"], f"teacher_{i}": both["teacher"]}
        found.append((name, {}, inputs))
    return found


def loss(config, inputs):
    per_sample = 0.0
    stages = sum(name.startswith("student_") for name in inputs)
    for stage in range(stages):
        student, teacher = inputs[f"student_{stage}"], inputs[f"teacher_{stage}"]
        levels, weights = [(student, teacher)], [1.0]
        for side in (4, 2, 1):
            if side < student.shape[2]:
                levels.append(tuple(F.adaptive_avg_pool2d(f, (side, side)) for f in (student, teacher)))
                weights.append(weights[-1] / 2)
        distances = [(s - t).pow(2).flatten(1).mean(1) for s, t in levels]
        per_sample = per_sample + sum(w * d for w, d in zip(weights, distances, strict=True)) / sum(weights)
    return per_sample.mean(), per_sample


def authors(authors, config, inputs):
    stages = range(sum(name.startswith("student_") for name in inputs))
    features = [[inputs[f"{role}_{i}"] for i in stages] for role in ("student", "teacher")]
    mdistiller = authors.load("mdistiller", "mdistiller/distillers/ReviewKD.py", "hcl_loss")["hcl_loss"]
    original = authors.load("ReviewKD", "CIFAR-100/model/reviewkd.py", "hcl")["hcl"]
    return [("mdistiller", "hcl_loss", mdistiller(*features)), ("ReviewKD", "hcl", original(*features))]
