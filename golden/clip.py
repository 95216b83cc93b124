"""What the losses on image and text embeddings share: inputs, both sides' cosines, and CLIP-KD's code."""

from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F

from shared import bell


def embeddings(name, batch, width, teacher_width=None, scales=(14.25, 20.0), scale=1.0):
    """Both sides; `scales` are the logit scales of student and teacher, `scale` the size of the embeddings."""
    found = {}
    for side, width, logit_scale in (("student", width, scales[0]), ("teacher", teacher_width or width, scales[1])):
        for modality in ("images", "texts"):
            found[f"{side}_{modality}"] = bell(f"{name}/{side}_{modality}", (batch, width), scale)
        # A text is nearer to its own image than to others, the more so for the teacher.
        found[f"{side}_texts"] += found[f"{side}_images"] * (0.5 if side == "student" else 1.0)
        found[f"{side}_logit_scale"] = np.array([logit_scale])
    return found


SHAPES = [
    ("default", (4, 6), {}),
    ("wide", (3, 11), {"scales": (100.0, 100.0)}),
    ("narrow", (7, 3), {"scales": (2.5, 40.0)}),
    ("batch_of_one", (1, 5), {}),
    ("batch_of_two", (2, 4), {"scales": (14.25, 1.0)}),
    ("large_embeddings", (5, 6), {"scale": 30.0}),
    ("small_scales", (5, 4), {"scales": (0.5, 0.25)}),
]
OTHER_WIDTHS = [
    ("wider_teacher", (4, 3), {"teacher_width": 7}),
    ("narrower_teacher", (5, 8), {"teacher_width": 2, "scales": (50.0, 50.0)}),
]


def shapes(loss, other_widths):
    """(name, inputs) of every case."""
    made = SHAPES + (OTHER_WIDTHS if other_widths else [])
    return [(name, embeddings(f"{loss}/{name}", *shape, **given)) for name, shape, given in made]


def unit(inputs, side):
    """The side's images and texts, each of length 1."""
    return [F.normalize(inputs[f"{side}_{modality}"], dim=1) for modality in ("images", "texts")]


def logits(inputs, side):
    """The side's logits, images in rows and texts in columns."""
    images, texts = unit(inputs, side)
    return inputs[f"{side}_logit_scale"] * torch.einsum("id,jd->ij", images, texts)


def pairs(logits):
    """The cross-entropy of each row with its own column."""
    return F.cross_entropy(logits, torch.arange(len(logits)), reduction="none")


def clip_kd(authors, config, inputs, logit_scales=None, fusion=None):
    """The authors' terms by name, each without its weight."""

    def alone(images, texts, *_):
        return images, texts

    names = ["KDClipLoss", "DistillKL", "get_grad"]
    code = authors.load("CLIP-KD", "src/open_clip/loss.py", *names, gather_features=alone, np=np)
    widths = [inputs[f"{side}_images"].shape[1] for side in ("student", "teacher")]
    weights = {f"alpha_{term}_loss": 1.0 for term in ("ckd", "icl", "cross_kd", "fd", "gd", "afd")}
    if widths[0] != widths[1]:  # their projection stands in front of these, ours is the caller's
        weights |= {"alpha_gd_loss": 0.0, "alpha_afd_loss": 0.0}
    given = SimpleNamespace(s_embed_dim=widths[0], t_embed_dim=widths[1], **weights)
    # With one process their forward reads names it never set; two processes of which the other adds nothing do not.
    module = code["KDClipLoss"](given, world_size=2).double()
    module.kl_loss = code["DistillKL"](config.get("temperature", 1))
    del module.cross_logit_scale, module.fusion_logit_scale
    module.cross_logit_scale = module.fusion_logit_scale = inputs.get("student_logit_scale", torch.ones(1))
    if fusion:
        del module.visual_fusion_proj, module.text_fusion_proj
        module.visual_fusion_proj, module.text_fusion_proj = fusion
    student = inputs["student_images"], inputs["student_texts"]
    scales = logit_scales or [inputs[f"{side}_logit_scale"] for side in ("student", "teacher")]
    with mock.patch.object(torch.Tensor, "cuda", lambda tensor: tensor):
        terms = module(*student, scales[0], *unit(inputs, "teacher"), scales[1])
    return dict(zip(("task", "ckd", "icl", "cross_kd", "fd", "gd", "afd"), terms, strict=True))
