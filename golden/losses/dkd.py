"""Decoupled knowledge distillation (Zhao 2022, arXiv 2203.08679)."""

import torch

from shared import kept, kl, logit_pairs, pair, rows, targets, tempered


def cases():
    found = []
    weights = [(1, 8), (1, 2), (0.5, 3), (1, 8)]
    for i, (name, inputs, t) in enumerate(logit_pairs("dkd")):
        inputs["targets"] = targets(f"dkd/{name}", inputs)
        alpha, beta = weights[i % 4]
        found.append((name, {"alpha": alpha, "beta": beta, "temperature": t}, inputs))
    for name, alpha, beta in [("target_part_only", 1, 0), ("other_part_only", 0, 1)]:
        inputs = pair(f"dkd/{name}", (4, 9), 2.0)
        inputs["targets"] = targets(f"dkd/{name}", inputs)
        found.append((name, {"alpha": alpha, "beta": beta, "temperature": 4}, inputs))
    return found


def binary(log_probs, target):
    """[log p(target), log p(not target)] and the log-probabilities of the others given that it is not the target."""
    classes = log_probs.shape[-1]
    others = torch.stack([torch.tensor([c for c in range(classes) if c != int(t)]) for t in target])
    rest = log_probs.gather(1, others)
    log_rest = rest.logsumexp(-1, keepdim=True)
    return torch.cat([log_probs.gather(1, target[:, None]), log_rest], -1), rest - log_rest


@rows
def loss(config, inputs):
    student, teacher = tempered(config, inputs)
    target = inputs["targets"].flatten()
    student_pair, student_rest = binary(student.flatten(0, -2), target)
    teacher_pair, teacher_rest = binary(teacher.flatten(0, -2), target)
    tckd, nckd = kl(teacher_pair, student_pair), kl(teacher_rest, student_rest)
    return config["temperature"] ** 2 * (config["alpha"] * tckd + config["beta"] * nckd)


def authors(authors, config, inputs):
    names = ["_get_gt_mask", "_get_other_mask", "cat_mask", "dkd_loss"]
    mdistiller = authors.load("mdistiller", "mdistiller/distillers/DKD.py", *names)["dkd_loss"]
    student, teacher, targets = kept(inputs, "student_logits", "teacher_logits", "targets")
    value = mdistiller(student, teacher, targets, config["alpha"], config["beta"], config["temperature"])
    return [("mdistiller", "dkd_loss", value)]
