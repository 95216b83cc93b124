"""Knowledge distillation beside the labels (Hinton 2015, arXiv 1503.02531, section 2)."""

import torch.nn.functional as F

from shared import kept, kl, logit_pairs, rows, targets, tempered


def cases():
    found = []
    for index, (name, inputs, t) in enumerate(logit_pairs("kd_cross_entropy")):
        inputs["targets"] = targets(f"kd_cross_entropy/{name}", inputs)
        weights = {"soft_weight": 0.7, "hard_weight": 0.4} if index % 2 else {"soft_weight": 0.9, "hard_weight": 0.1}
        found.append((name, {"temperature": t, **weights}, inputs))
    return found


@rows
def loss(config, inputs):
    student, teacher = tempered(config, inputs)
    soft = config["temperature"] ** 2 * kl(teacher, student)
    logits = inputs["student_logits"].flatten(0, -2)
    hard = F.cross_entropy(logits, inputs["targets"].flatten(), reduction="none")
    return config["soft_weight"] * soft.flatten() + config["hard_weight"] * hard


def authors(authors, config, inputs):
    """`gamma * loss_cls + alpha * loss_div` of `train_student.py`, whose script cannot be called."""
    student, teacher, target = kept(inputs, "student_logits", "teacher_logits", "targets")
    divergence = authors.load("RepDistiller", "distiller_zoo/KD.py", "DistillKL")["DistillKL"]
    value = config["hard_weight"] * F.cross_entropy(student, target)
    value = value + config["soft_weight"] * divergence(config["temperature"])(student, teacher)
    return [("RepDistiller", "DistillKL beside cross-entropy", value)]
