"""Relational knowledge distillation (Park 2019, arXiv 1904.05068)."""

import torch
import torch.nn.functional as F

from shared import features

PER_SAMPLE = "mean over the pairs (distance) and the pairs of edges (angle) that start at the sample, weighted"
KINKS = {"duplicate_rows"}  # where rows coincide


def cases():
    shapes = [
        ("default", (5, 6), (5, 6), 25, 50),
        ("distance_only", (5, 6), (5, 4), 25, 0),
        ("angle_only", (5, 6), (5, 4), 0, 50),
        ("other_weights", (6, 3), (6, 8), 1, 2),
        ("batch_of_two", (2, 5), (2, 5), 25, 50),
        ("batch_of_three", (3, 5), (3, 5), 25, 50),
        ("duplicate_rows", (5, 4), (5, 3), 25, 50),
        ("images", (4, 2, 3, 3), (4, 3, 2, 2), 25, 50),
        ("outlier", (6, 4), (6, 4), 25, 50),
    ]
    found = []
    for name, student, teacher, distance, angle in shapes:
        inputs = features(f"rkd/{name}", student, teacher)
        if name == "outlier":  # normalised distances differ by more than 1: the linear part of the Huber loss
            inputs["student"][1] *= 16.0
        if name == "duplicate_rows":
            inputs["student"][3] = inputs["student"][1]
        found.append((name, {"distance_weight": distance, "angle_weight": angle}, inputs))
    return found


def loss(config, inputs):
    relations = []
    for features in (inputs["student"].flatten(1), inputs["teacher"].flatten(1)):
        n = len(features)
        difference = features[None, :, :] - features[:, None, :]
        apart = ~torch.eye(n, dtype=torch.bool)
        distance = torch.zeros(n, n, dtype=features.dtype)
        distance[apart] = difference[apart].pow(2).sum(-1).clamp(min=1e-12).sqrt()
        length = difference.norm(dim=2, keepdim=True)
        # Two equal rows have no direction between them: no angle and no gradient.
        edge = torch.where(length > 0, difference / torch.where(length > 0, length, 1.0), 0.0)
        relations.append((distance / distance[apart].mean(), torch.einsum("ajd,akd->ajk", edge, edge)))
    (student_distance, student_angle), (teacher_distance, teacher_angle) = relations
    by_distance = F.smooth_l1_loss(student_distance, teacher_distance, reduction="none").mean(1)
    by_angle = F.smooth_l1_loss(student_angle, teacher_angle, reduction="none").mean((1, 2))
    per_sample = config["distance_weight"] * by_distance + config["angle_weight"] * by_angle
    return per_sample.mean(), per_sample


def authors(authors, config, inputs):
    student, teacher = inputs["student"], inputs["teacher"]
    distance, angle = config["distance_weight"], config["angle_weight"]
    repdistiller = authors.load("RepDistiller", "distiller_zoo/RKD.py", "RKDLoss")["RKDLoss"]
    pdist = authors.load("RKD", "metric/utils.py", "pdist")["pdist"]
    original = authors.load("RKD", "metric/loss.py", "RkdDistance", "RKdAngle", pdist=pdist)
    flat = student.flatten(1), teacher.flatten(1)
    value = distance * original["RkdDistance"]()(*flat) + angle * original["RKdAngle"]()(*flat)
    return [
        ("RepDistiller", "RKDLoss", repdistiller(distance, angle)(student, teacher)),
        ("RKD", "RkdDistance and RKdAngle", value),
    ]
