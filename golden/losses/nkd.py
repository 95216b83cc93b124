"""Normalised knowledge distillation, NKD (Yang 2023, arXiv 2303.13005)."""

import torch
import torch.nn.functional as F

from shared import kept, kl, logit_pairs, pair, rows, targets


def cases():
    found = []
    gammas = [1.5, 3.5, 1, 0.25]
    for i, (name, inputs, t) in enumerate(logit_pairs("nkd")):
        inputs["targets"] = targets(f"nkd/{name}", inputs)
        found.append((name, {"gamma": gammas[i % 4], "temperature": t}, inputs))
    inputs = pair("nkd/target_part_only", (4, 9), 2.0)
    inputs["targets"] = targets("nkd/target_part_only", inputs)
    found.append(("target_part_only", {"gamma": 0, "temperature": 3}, inputs))
    return found


def others(logits, target):
    """The logits of the classes that are not the target's."""
    keep = [[c for c in range(logits.shape[-1]) if c != int(t)] for t in target]
    return logits.gather(-1, torch.tensor(keep))


def flat(inputs):
    return inputs["student_logits"].flatten(0, -2), inputs["teacher_logits"].flatten(0, -2), inputs["targets"].flatten()


@rows
def loss(config, inputs):
    """The paper's equation, with the divergence of the normalised distributions in place of their cross-entropy."""
    student, teacher, target = flat(inputs)
    t = config["temperature"]
    at_target = teacher.softmax(-1).gather(-1, target[:, None])[:, 0] * F.cross_entropy(student, target, reduction="none")
    normalised = [F.log_softmax(others(logits, target) / t, -1) for logits in (teacher, student)]
    return at_target + config["gamma"] * t**2 * kl(*normalised)


def authors(authors, config, inputs):
    """Less the entropy of the teacher's normalised distribution, which has no gradient."""
    student, teacher, target = kept(inputs, "student_logits", "teacher_logits", "targets")
    t, gamma = config["temperature"], config["gamma"]
    given = {"MODELS": None}
    nkd = authors.load("cls_KD", "mmcls/models/dis_losses/nkd.py", "NKDLoss", **given)["NKDLoss"]
    value = nkd("nkd", True, t, gamma)(student, teacher, target)
    normalised = F.log_softmax(others(teacher, target) / t, -1)
    entropy = -(normalised.exp() * normalised).sum(-1).mean()
    return [("cls_KD", "NKDLoss less the teacher's entropy", value - gamma * t**2 * entropy)]
