"""Logit standardisation (Sun 2024, arXiv 2403.01427) in front of KD and of DKD."""

import torch

from losses import load
from shared import kept, logit_pairs, targets

AFTER = {"kd": load("kd").loss, "dkd": load("dkd").loss}


def cases():
    found = []
    for i, (name, inputs, t) in enumerate(logit_pairs("standardize")):
        if name == "two_classes":  # their Z-scores never change: all of the gradient is the 1e-7's
            continue
        config = {"after": "kd", "temperature": t}
        if i % 3 == 1:
            inputs["targets"] = targets(f"standardize/{name}", inputs)
            config = {"after": "dkd", "temperature": t, "alpha": 1, "beta": 2}
        found.append((name, config, inputs))
    return found


def z_score(logits):
    """As the code has it: the deviation with n - 1, and 1e-7 added to it; PyTorch gives no slope where it is 0."""
    deviation, mean = torch.std_mean(logits, -1, keepdim=True)
    return (logits - mean) / (deviation + 1e-7)


def loss(config, inputs):
    logits = {name: z_score(inputs[name]) for name in ("student_logits", "teacher_logits")}
    return AFTER[config["after"]](config, {**inputs, **logits})


def authors(authors, config, inputs):
    repository, folder = "logit-standardization-KD", "mdistiller/distillers"
    student, teacher = kept(inputs, "student_logits", "teacher_logits")
    if config["after"] == "kd":
        kd = authors.load(repository, f"{folder}/KD.py", "normalize", "kd_loss")["kd_loss"]
        return [(repository, "KD's kd_loss", kd(student, teacher, config["temperature"], True))]
    names = ["normalize", "_get_gt_mask", "_get_other_mask", "cat_mask", "dkd_loss"]
    dkd = authors.load(repository, f"{folder}/DKD.py", *names)["dkd_loss"]
    [target] = kept(inputs, "targets")
    value = dkd(student, teacher, target, config["alpha"], config["beta"], config["temperature"], True)
    return [(repository, "DKD's dkd_loss", value)]
