"""Multi-level logit distillation (Jin 2023, CVPR): instances, batch and classes at several temperatures."""

import torch
import torch.nn.functional as F

from shared import bell, kept, kl, mask, pair

PER_SAMPLE = "its own divergence, its row of the batch's Gram matrix, and all of the classes' Gram matrix"


def cases():
    every = [2, 3, 4, 5, 6]
    shapes = [
        # name, shape, temperatures, weights (instance, batch, class), scale
        ("all_levels", (4, 6), every, (1, 1, 1), 2.0),
        ("instances_only", (4, 6), every, (1, 0, 0), 2.0),
        ("batch_only", (5, 4), [4], (0, 1, 0), 2.0),
        ("classes_only", (5, 4), [1, 2], (0, 0, 1), 2.0),
        ("weighted", (3, 7), [1, 4], (0.5, 2, 3), 3.0),
        ("more_rows_than_classes", (11, 3), every, (1, 1, 1), 2.0),
        ("more_classes_than_rows", (2, 65), [2, 4], (1, 1, 1), 2.0),
        ("batch_of_one", (1, 5), every, (1, 1, 1), 2.0),
        ("scale_30", (4, 8), [1, 4], (1, 1, 1), 30.0),
        ("rows_masked", (7, 5), [2, 4], (1, 1, 1), 2.0),
        ("tokens", (2, 3, 5), [2, 4], (1, 2, 1), 2.0),
        ("tokens_masked", (3, 4, 5), [3], (1, 1, 1), 2.0),
    ]
    found = []
    for name, shape, temperatures, weights, scale in shapes:
        inputs = pair(f"mlkd/{name}", shape, scale)
        if name.endswith("masked"):
            inputs["mask"] = mask(f"mlkd/{name}", shape[:-1])
        config = {"temperatures": temperatures}
        config |= dict(zip(("instance_weight", "batch_weight", "class_weight"), weights, strict=True))
        found.append((name, config, inputs))
    name, shape = "student_is_teacher", (4, 5)
    logits = bell(f"mlkd/{name}", shape, 2.0)
    found.append((name, {"temperatures": [1, 4]}, {"student_logits": logits, "teacher_logits": logits.copy()}))
    return found


def loss(config, inputs):
    student, teacher = kept(inputs, "student_logits", "teacher_logits")
    count, classes = student.shape
    per_row = torch.zeros(count, dtype=student.dtype)
    for t in config["temperatures"]:
        log_p, log_q = F.log_softmax(teacher / t, -1), F.log_softmax(student / t, -1)
        p, q = log_p.exp(), log_q.exp()
        between_rows = torch.einsum("ic,jc->ij", p, p) - torch.einsum("ic,jc->ij", q, q)
        between_classes = torch.einsum("ic,id->cd", p, p) - torch.einsum("ic,id->cd", q, q)
        per_row = per_row + config.get("instance_weight", 1) * t**2 * kl(log_p, log_q)
        per_row = per_row + config.get("batch_weight", 1) * between_rows.square().sum(1)
        per_row = per_row + config.get("class_weight", 1) * between_classes.square().sum() / classes
    return per_row.mean(), everywhere(per_row, inputs)


def everywhere(per_row, inputs):
    """The rows that count among all; 0 elsewhere."""
    if "mask" not in inputs:
        return per_row
    flags = inputs["mask"].flatten()
    return torch.zeros(len(flags), dtype=per_row.dtype).masked_scatter(flags, per_row)


def authors(authors, config, inputs):
    """Their three functions, added up over the temperatures; what they do with masks and views is the trainer's."""
    student, teacher = kept(inputs, "student_logits", "teacher_logits")
    path, repository = "mdistiller/distillers/KD_ours.py", "Multi-Level-Logit-Distillation"
    parts = authors.load(repository, path, "kd_loss", "bc_loss", "cc_loss")
    value = 0.0
    for t in config["temperatures"]:
        value = value + config.get("instance_weight", 1) * parts["kd_loss"](student, teacher, t)
        value = value + config.get("batch_weight", 1) * parts["bc_loss"](student, teacher, t)
        value = value + config.get("class_weight", 1) * parts["cc_loss"](student, teacher, t)
    return [(repository, "kd_loss, bc_loss and cc_loss", value)]
