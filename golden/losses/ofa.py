"""OFA-KD's target-enhanced loss on one exit's logits (Hao 2023, arXiv 2310.19444)."""

import torch
import torch.nn.functional as F

from shared import kept, logit_pairs, pair, rows, targets


def cases():
    found = []
    gammas = [1, 1.5, 1.25, 2]
    for i, (name, inputs, t) in enumerate(logit_pairs("ofa")):
        inputs["targets"] = targets(f"ofa/{name}", inputs)
        found.append((name, {"gamma": gammas[i % 4], "temperature": t}, inputs))
    inputs = pair("ofa/gamma_0.5", (4, 9), 2.0)
    inputs["targets"] = targets("ofa/gamma_0.5", inputs)
    found.append(("gamma_0.5", {"gamma": 0.5, "temperature": 2}, inputs))
    return found


def weights(config, teacher, target):
    """(p + onehot)^gamma - onehot of each class."""
    hot = F.one_hot(target, teacher.shape[-1])
    return ((teacher / config["temperature"]).softmax(-1) + hot) ** config["gamma"] - hot


def least(weight):
    """The smallest cross-entropy that a student can have with these weights."""
    return torch.special.entr(weight).sum(-1) - torch.special.entr(weight.sum(-1))


@rows
def loss(config, inputs):
    student, teacher = inputs["student_logits"].flatten(0, -2), inputs["teacher_logits"].flatten(0, -2)
    t = config["temperature"]
    weight = weights(config, teacher, inputs["targets"].flatten())
    return t**2 * (-(weight * F.log_softmax(student / t, -1)).sum(-1) - least(weight))


def authors(authors, config, inputs):
    """Times temperature squared, less the smallest value that it can have, which has no gradient."""
    student, teacher, target = kept(inputs, "student_logits", "teacher_logits", "targets")
    t, gamma = config["temperature"], config["gamma"]
    ofa = authors.load("OFAKD", "distillers/ofa.py", "ofa_loss")["ofa_loss"]
    value = ofa(student, teacher, F.one_hot(target, student.shape[-1]), gamma, t)
    value = t**2 * (value - least(weights(config, teacher, target)).mean())
    return [("OFAKD", "ofa_loss * temperature^2 less its minimum", value)]
