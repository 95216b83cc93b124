"""Affinity mimicking (TinyCLIP; Wu 2023, arXiv 2309.12314)."""

from contextlib import nullcontext

from clip import logits, shapes, unit

PER_SAMPLE = "half the soft cross-entropy of the sample's image over texts, and half that of its text over images"


def cases():
    return [(name, {}, inputs) for name, inputs in shapes("affinity_mimicking", other_widths=True)]


def loss(config, inputs):
    student, teacher = logits(inputs, "student"), logits(inputs, "teacher")
    directions = [(student, teacher), (student.mT, teacher.mT)]
    per_sample = sum(-(t.softmax(1) * s.log_softmax(1)).sum(1) / 2 for s, t in directions)
    return per_sample.mean(), per_sample


def authors(authors, config, inputs):
    path = "src/open_clip/clip_soft_loss.py"
    given = {"gather_feature": lambda feature, *_: feature, "nullcontext": nullcontext}
    soft = authors.load("TinyCLIP", path, "ClipSoftLoss", **given)["ClipSoftLoss"](local_loss=True, rank=0, world_size=1)
    student, teacher = (unit(inputs, side) for side in ("student", "teacher"))
    value = soft(*student, inputs["student_logit_scale"], *teacher, inputs["teacher_logit_scale"])
    return [("TinyCLIP", "ClipSoftLoss", value)]
