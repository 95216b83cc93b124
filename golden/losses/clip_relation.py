"""Contrastive relational distillation of CLIP-KD (Yang 2024, arXiv 2307.12732)."""

import torch.nn.functional as F

from clip import clip_kd, embeddings, logits, shapes
from shared import kl

PER_SAMPLE = "half the divergence of the sample's image over texts, and half that of its text over images"


def cases():
    found = [(name, {}, inputs) for name, inputs in shapes("clip_relation", other_widths=True)]
    for temperature in (0.5, 4):
        name = f"temperature_{temperature}"
        found.append((name, {"temperature": temperature}, embeddings(f"clip_relation/{name}", 4, 5)))
    return found


def loss(config, inputs):
    t = config.get("temperature", 1)
    student, teacher = (logits(inputs, side) / t for side in ("student", "teacher"))
    directions = [(student, teacher), (student.mT, teacher.mT)]
    per_sample = sum(t**2 / 2 * kl(F.log_softmax(p, 1), F.log_softmax(q, 1)) for q, p in directions)
    return per_sample.mean(), per_sample


def authors(authors, config, inputs):
    return [("CLIP-KD", "KDClipLoss, ckd_loss", clip_kd(authors, config, inputs)["ckd"])]
