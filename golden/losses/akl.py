"""Adaptive KL (arXiv 2404.02657). The weights are constants, so its gradient is not the slope of its value."""

from types import SimpleNamespace

import torch

from authors import in_float64
from shared import kept, kl, logit_pairs, pair, rows, tempered

MUS = [0.5, 0.25, 0.8, 0.5, 0.95]


def cases():
    found = []
    for mu, t in [(0.5, 1), (0.2, 1), (0.8, 2), (0.95, 1)]:
        name = f"mu_{mu}_temperature_{t}"
        found.append((name, {"mu": mu, "temperature": t}, pair(f"akl/{name}", (3, 9), 1.5)))
    for i, (name, inputs, t) in enumerate(logit_pairs("akl")):
        # Equal rows have no gaps to weigh by: 0 / 0 in the formula.
        if name != "student_is_teacher":
            found.append((name, {"mu": MUS[i % 5], "temperature": t}, inputs))
    return found


KINKS = [name for name, _, _ in cases()]


def head(teacher, mu):
    """True for the fewest most probable classes that hold at least mu, class by class."""
    found = torch.zeros_like(teacher, dtype=torch.bool)
    for row, flags in zip(teacher.reshape(-1, teacher.shape[-1]), found.reshape(-1, teacher.shape[-1]), strict=True):
        held = 0.0
        for c in sorted(range(len(row)), key=lambda c: -row[c].item()):
            if held >= mu:
                break
            flags[c] = True
            held += row[c].item()
    return found


@rows
def loss(config, inputs):
    student, teacher = tempered(config, inputs)
    gap = (teacher.exp() - student.exp()).abs().detach()
    in_head = head(teacher.exp().detach(), config["mu"])
    g_head, g_tail = (gap * in_head).sum(-1), (gap * ~in_head).sum(-1)
    mixed = g_head * kl(teacher, student) + g_tail * kl(student, teacher)
    return config["temperature"] ** 2 * mixed / (g_head + g_tail)


def authors(authors, config, inputs):
    t = config["temperature"]
    student, teacher = kept(inputs, "student_logits", "teacher_logits")
    labels = torch.zeros(student.shape[:-1], dtype=torch.long)
    names = ["forward_kl", "reverse_kl", "adaptive_kl"]
    names = [f"compute_{name}_divergence" for name in names]
    dskd = authors.load("DSKD", "code/criterions/various_divergence.py", *names)
    criterion = SimpleNamespace(
        kd_temp=t, tea_temp=1, padding_id=-100, args=SimpleNamespace(adaptive_kl_alpha=1 - config["mu"])
    )
    for name in names[:2]:
        setattr(criterion, name, lambda *x, name=name, **named: dskd[name](criterion, *x, **named))
    original = authors.load("LLM_KD_AKL", "AKL.py", "get_ratio", "get_kl")
    with in_float64():
        total = dskd[names[2]](criterion, student, teacher, labels)
        tempered = (teacher[None] / t, student[None] / t)
        everything, nothing = torch.ones_like(labels)[None], torch.zeros_like(student[None], dtype=torch.bool)
        forward, reverse = original["get_ratio"](*tempered, mu=config["mu"])
        value = original["get_kl"](*tempered, nothing, everything, forward) + original["get_kl"](
            *tempered[::-1], nothing, everything, reverse
        )
    return [
        ("DSKD", f"{names[2]} (alpha = 1 - mu) / rows * temperature^2", t**2 * total / len(labels)),
        ("LLM_KD_AKL", "get_ratio and get_kl * temperature^2", t**2 * value),
    ]
