"""Softmax regression representation learning, SRRL (Yang 2021, ICLR).

`fixed_classifier` is the teacher's last linear layer, `[features, classes]`.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

from shared import bell, features

PER_SAMPLE = "the mean over features plus the weighted mean over classes"


def cases():
    shapes = [
        ("default", 1.0, (3, 4, 3, 3), (3, 4, 3, 3), 5),
        ("other_size", 1.0, (2, 3, 2, 2), (2, 3, 4, 3), 4),
        ("vectors", 1.0, (4, 5, 1, 1), (4, 5, 1, 1), 3),
        ("weight_10", 10.0, (3, 4, 2, 1), (3, 4, 1, 2), 7),
        ("features_only", 0.0, (3, 4, 2, 2), (3, 4, 2, 2), 2),
        ("batch_of_one", 0.5, (1, 6, 2, 1), (1, 6, 2, 2), 3),
        ("scale_30", 1.0, (3, 4, 1, 2), (3, 4, 1, 2), 5),
    ]
    found = []
    for name, weight, student, teacher, classes in shapes:
        inputs = features(f"srrl/{name}", student, teacher, 30.0 if name == "scale_30" else 1.0)
        inputs["fixed_classifier"] = bell(f"srrl/{name}/fixed_classifier", (student[1], classes), 0.5)
        found.append((name, {"regression_weight": weight}, inputs))
    return found


def pooled(features):
    return features.mean((2, 3))


def loss(config, inputs):
    student, teacher = pooled(inputs["student"]), pooled(inputs["teacher"])
    matching = F.mse_loss(student, teacher, reduction="none").mean(1)
    # A bias of the classifier would drop out of the difference.
    logits = [features @ inputs["fixed_classifier"] + 0.25 for features in (student, teacher)]
    regression = F.mse_loss(*logits, reduction="none").mean(1)
    per_sample = matching + config["regression_weight"] * regression
    return per_sample.mean(), per_sample


def authors(authors, config, inputs):
    statistics = authors.load("KD_SRRL", "distiller_zoo/AIN.py", "statm_loss")["statm_loss"]()
    weight = inputs["fixed_classifier"]
    classifier = nn.Sequential(nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(*weight.shape)).double()
    with torch.no_grad():
        classifier[2].weight.copy_(weight.T)
    sides = inputs["student"], inputs["teacher"]
    # `loss_kd` of train_imagenet_distillation.py, whose teacher pools and classifies.
    value = statistics(*sides) + F.mse_loss(*(classifier(f) for f in sides)) * config["regression_weight"]
    return [("KD_SRRL", "statm_loss and mse_loss of the teacher's logits", value)]
