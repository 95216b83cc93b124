"""Feature distillation of CLIP-KD (Yang 2024, arXiv 2307.12732)."""

import torch.nn.functional as F

from clip import clip_kd, shapes, unit

PER_SAMPLE = "mean squared difference of the sample's unit image embeddings, and of its unit text embeddings, added"


def cases():
    return [
        (name, {}, {key: value for key, value in inputs.items() if not key.endswith("logit_scale")})
        for name, inputs in shapes("clip_feature", other_widths=False)
    ]


def loss(config, inputs):
    sides = zip(unit(inputs, "student"), unit(inputs, "teacher"), strict=True)
    per_sample = sum(F.mse_loss(student, teacher, reduction="none").mean(1) for student, teacher in sides)
    return per_sample.mean(), per_sample


def authors(authors, config, inputs):
    return [("CLIP-KD", "KDClipLoss, fd_loss", clip_kd(authors, config, inputs, [1.0, 1.0])["fd"])]
