"""Interactive contrastive learning of CLIP-KD (Yang 2024, arXiv 2307.12732)."""

import torch

from clip import clip_kd, pairs, shapes, unit

PER_SAMPLE = "half the cross-entropy of the student's image among the teacher's texts, half that of text among images"


def cases():
    return [(name, {}, inputs) for name, inputs in shapes("clip_interactive", other_widths=False)]


def loss(config, inputs):
    (images, texts), (teacher_images, teacher_texts) = unit(inputs, "student"), unit(inputs, "teacher")
    by_image = pairs(inputs["student_logit_scale"] * torch.einsum("id,jd->ij", images, teacher_texts))
    by_text = pairs(inputs["student_logit_scale"] * torch.einsum("id,jd->ij", texts, teacher_images))
    per_sample = (by_image + by_text) / 2
    return per_sample.mean(), per_sample


def authors(authors, config, inputs):
    return [("CLIP-KD", "KDClipLoss, icl_loss", clip_kd(authors, config, inputs)["icl"])]
