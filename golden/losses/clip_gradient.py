"""Gradient distillation of CLIP-KD (Yang 2024, arXiv 2307.12732).

The gradients come from autograd, so that nothing of the analytic form is repeated here.
"""

import torch

from clip import clip_kd, pairs, shapes, unit

PER_SAMPLE = "mean squared difference of the gradients to the sample's embeddings, added over four gradients"


def cases():
    return [(name, {}, inputs) for name, inputs in shapes("clip_gradient", other_widths=False)]


def slopes(inputs, side):
    """Gradients of both directions' losses to the unit embeddings, images and texts."""
    embeddings = [part if part.requires_grad else part.requires_grad_() for part in unit(inputs, side)]
    logits = inputs[f"{side}_logit_scale"] * torch.einsum("id,jd->ij", *embeddings)
    found = []
    for direction in (logits, logits.mT):
        found += torch.autograd.grad(pairs(direction).mean(), embeddings, create_graph=True)
    return found


def loss(config, inputs):
    both = zip(slopes(inputs, "student"), slopes(inputs, "teacher"), strict=True)
    per_sample = sum((student - teacher.detach()).pow(2).mean(1) for student, teacher in both)
    return per_sample.mean(), per_sample


def authors(authors, config, inputs):
    # They divide by what their trainer gives, which is the scale; a temperature is its inverse.
    temperatures = [1 / inputs[f"{side}_logit_scale"] for side in ("student", "teacher")]
    value = clip_kd(authors, config, inputs, temperatures)["gd"]
    return [("CLIP-KD", "KDClipLoss, gd_loss, given 1 / logit_scale", value)]
