"""Augmented feature distillation of CLIP-KD (Yang 2024, arXiv 2307.12732)."""

import torch
import torch.nn.functional as F

from clip import clip_kd, pairs, shapes, unit
from shared import bell

PER_SAMPLE = "half the cross-entropy of the sample's fused image among texts, and half that of its fused text"


def cases():
    found = []
    for name, inputs in shapes("clip_augmented", other_widths=True):
        student, teacher = (inputs[f"{side}_images"].shape[1] for side in ("student", "teacher"))
        for fusion in ("image_fusion", "text_fusion"):
            of = f"parameter.{fusion}"
            inputs[f"{of}.weight"] = bell(f"clip_augmented/{name}/{of}.weight", (student + teacher, student), 0.5)
            inputs[f"{of}.bias"] = bell(f"clip_augmented/{name}/{of}.bias", (student,), 0.25)
        del inputs["teacher_logit_scale"]
        found.append((name, {"student_width": student, "teacher_width": teacher}, inputs))
    return found


def fusion(inputs, name):
    weight, bias = (inputs[f"parameter.{name}_fusion.{of}"] for of in ("weight", "bias"))
    return lambda both: F.linear(both, weight.mT, bias)


def loss(config, inputs):
    sides = zip(("image", "text"), unit(inputs, "student"), unit(inputs, "teacher"), strict=True)
    fused = [F.normalize(fusion(inputs, name)(torch.cat([s, t], 1)), dim=1) for name, s, t in sides]
    logits = inputs["student_logit_scale"] * torch.einsum("id,jd->ij", *fused)
    per_sample = (pairs(logits) + pairs(logits.mT)) / 2
    return per_sample.mean(), per_sample


def authors(authors, config, inputs):
    if config["student_width"] != config["teacher_width"]:
        return []  # their projection of the student stands in front of the fusion
    fusions = fusion(inputs, "image"), fusion(inputs, "text")
    terms = clip_kd(authors, config, inputs, [inputs["student_logit_scale"], 1.0], fusions)
    return [("CLIP-KD", "KDClipLoss, afd_loss", terms["afd"])]
