"""Weighted soft labels (Zhou 2021, arXiv 2102.00650)."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

from shared import kept, kl, logit_pairs, on_cpu, rows, targets


def cases():
    found = []
    for name, inputs, t in logit_pairs("wsld"):
        inputs["targets"] = targets(f"wsld/{name}", inputs)
        found.append((name, {"temperature": t}, inputs))
    return found


def weight(student, teacher, target):
    """1 - exp(-student's cross-entropy / teacher's), a constant; 1e-7 as in the authors' code."""
    hard = [F.cross_entropy(logits.detach(), target, reduction="none") for logits in (student, teacher)]
    return 1 - torch.exp(-hard[0] / (hard[1] + 1e-7))


@rows
def soft(config, inputs):
    student, teacher = inputs["student_logits"].flatten(0, -2), inputs["teacher_logits"].flatten(0, -2)
    t = config["temperature"]
    divergence = kl(F.log_softmax(teacher / t, -1), F.log_softmax(student / t, -1))
    fixed = inputs.get("fixed_weight")
    return (weight(student, teacher, inputs["targets"].flatten()) if fixed is None else fixed) * t**2 * divergence


def loss(config, inputs):
    return soft(config, inputs)


def surrogate(config, at):
    """The loss of which the gradient is the slope: the weights stay where they are."""
    flat = [at[name].flatten(0, -2) for name in ("student_logits", "teacher_logits")]
    fixed = weight(*flat, at["targets"].flatten())
    return lambda config, moved: soft(config, {**moved, "fixed_weight": fixed})


def authors(authors, config, inputs):
    """Less the entropy of the teacher, weighted alike, which has no gradient."""
    student, teacher, target = kept(inputs, "student_logits", "teacher_logits", "targets")
    t, classes = config["temperature"], student.shape[-1]
    p = F.log_softmax(teacher / t, -1)
    entropy = (weight(student, teacher, target) * t**2 * -(p.exp() * p).sum(-1)).mean()
    path = "mmcls/models/dis_losses/wsld.py"
    with on_cpu():
        again = authors.load("cls_KD", path, "WSLDLoss", MODELS=None)["WSLDLoss"]
        again = again("wsld", True, t, 1.0, classes)(student, teacher, target)
        # Made for ImageNet: the number of classes is written into the call.
        told = SimpleNamespace(one_hot=lambda label, num_classes: F.one_hot(label, classes))
        settings = SimpleNamespace(optim=SimpleNamespace(label_smooth=False))
        repository = "Weighted-Soft-Label-Distillation"
        distiller = authors.load(repository, "knowledge_distiller.py", "WSLDistiller", F=told, config=settings)
        distiller = distiller["WSLDistiller"](lambda _: teacher, lambda _: student)
        distiller.T, distiller.alpha = t, 1.0
        value = distiller(None, target)[1] - F.cross_entropy(student, target)
    return [
        (repository, "WSLDistiller's soft part less the teacher's entropy", value - entropy),
        ("cls_KD", "WSLDLoss less the teacher's entropy", again - entropy),
    ]
