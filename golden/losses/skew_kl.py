"""Skew KL (DistiLLM, arXiv 2402.03898)."""

from types import SimpleNamespace

import torch

from authors import in_float64
from shared import kept, kl, logit_pairs, pair, rows, tempered

ALPHAS = [0.1, 0, 0.5, 0.9, 0.1, 0.3]


def cases():
    found = []
    for alpha, t in [(0.1, 1), (0.1, 2), (0.5, 2), (0.9, 1)]:
        name = f"alpha_{alpha}_temperature_{t}"
        found.append((name, {"alpha": alpha, "temperature": t}, pair(f"skew_kl/{name}", (3, 7), 2.0)))
    for i, (name, inputs, t) in enumerate(logit_pairs("skew_kl")):
        found.append((name, {"alpha": 0.1 if name == "extreme" else ALPHAS[i % 6], "temperature": t}, inputs))
    return found


@rows
def loss(config, inputs):
    student, teacher = tempered(config, inputs)
    alpha = torch.tensor(config["alpha"], dtype=student.dtype)
    mixture = torch.logaddexp(teacher + alpha.log(), student + torch.log1p(-alpha)) if alpha > 0 else student
    return config["temperature"] ** 2 * kl(teacher, mixture)


def authors(authors, config, inputs):
    student, teacher = (x / config["temperature"] for x in kept(inputs, "student_logits", "teacher_logits"))
    squared = config["temperature"] ** 2
    labels = torch.zeros(student.shape[:-1], dtype=torch.long)
    distillm = authors.load("distillm", "distillm/losses.py", "skewed_forward_kl")["skewed_forward_kl"]
    name = "compute_skewed_forward_kl_divergence"
    dskd = authors.load("DSKD", "code/criterions/various_divergence.py", name)[name]
    criterion = SimpleNamespace(
        kd_temp=config["temperature"], tea_temp=1, padding_id=-100, args=SimpleNamespace(skew_lambda=config["alpha"])
    )
    with in_float64():
        value = distillm(student, teacher, {"label": labels}, lam=config["alpha"])
        value += (teacher.softmax(-1) * teacher.log_softmax(-1)).sum(-1).mean()
        logits = (x * config["temperature"] for x in (student, teacher))
        mean = dskd(criterion, *logits, labels) / len(labels)
    return [
        ("distillm", "skewed_forward_kl minus the teacher's entropy, times temperature^2", squared * value),
        ("DSKD", f"{name} / rows * temperature^2", squared * mean),
    ]
