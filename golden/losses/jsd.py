"""Generalised Jensen-Shannon divergence (GKD, arXiv 2306.13649)."""

import torch

from shared import kl, logit_pairs, pair, rows, tempered, trl_jsd


def cases():
    betas = [0, 0.1, 0.5, 0.9, 1]
    found = []
    for beta in betas:
        for t in (1, 2):
            name = f"beta_{beta}_temperature_{t}"
            found.append((name, {"beta": beta, "temperature": t}, pair(f"jsd/{name}", (3, 7), 2.0)))
    for i, (name, inputs, t) in enumerate(logit_pairs("jsd")):
        found.append((name, {"beta": betas[(2 + 3 * i) % 5] if name != "extreme" else 0.1, "temperature": t}, inputs))
    return found


@rows
def loss(config, inputs):
    student, teacher = tempered(config, inputs)
    beta = torch.tensor(config["beta"], dtype=student.dtype)
    if beta == 0:
        divergence = kl(teacher, student)
    elif beta == 1:
        divergence = kl(student, teacher)
    else:
        mixture = torch.logaddexp(student + torch.log(1 - beta), teacher + torch.log(beta))
        divergence = beta * kl(teacher, mixture) + (1 - beta) * kl(student, mixture)
    return config["temperature"] ** 2 * divergence


def authors(authors, config, inputs):
    return trl_jsd(authors, config, inputs)
