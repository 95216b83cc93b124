"""The losses as PyTorch programs write them, and a step of each: forward, backward, one element of the gradient read."""

import math
import time

import torch
import torch.nn.functional as F

from inputs import Logits


def kd(student, x: Logits, temperature=2.0):
    log_q = F.log_softmax(student / temperature, dim=1)
    return F.kl_div(log_q, F.softmax(x.teacher / temperature, dim=1), reduction="batchmean") * temperature**2


def reverse_kl(student, x: Logits):
    log_p, log_q = F.log_softmax(x.teacher, dim=1), F.log_softmax(student, dim=1)
    return F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)


def jsd(student, x: Logits):
    return jensen_shannon(student, x.teacher)


def jensen_shannon(student, teacher, beta=0.5):
    """As TRL's `generalized_jsd_loss` at temperature 1: the mixture in logarithms."""
    log_q, log_p = F.log_softmax(student, dim=-1), F.log_softmax(teacher, dim=-1)
    mixture = torch.logsumexp(torch.stack([log_q + math.log(1 - beta), log_p + math.log(beta)]), dim=0)
    of_teacher = F.kl_div(mixture, log_p, reduction="none", log_target=True)
    of_student = F.kl_div(mixture, log_q, reduction="none", log_target=True)
    return (beta * of_teacher + (1 - beta) * of_student).sum() / student.shape[0]


def skew_kl(student, x: Logits, alpha=0.1):
    """DistiLLM, eq. 4: KL from the teacher to a mixture of both."""
    p, q = F.softmax(x.teacher, dim=1), F.softmax(student, dim=1)
    return (p * (F.log_softmax(x.teacher, dim=1) - torch.log(alpha * p + (1 - alpha) * q))).sum(1).mean()


def kd_cross_entropy(student, x: Logits):
    return 0.5 * kd(student, x) + 0.5 * F.cross_entropy(student, x.targets)


def dkd(student, x: Logits, alpha=1.0, beta=8.0, temperature=4.0):
    """Decoupled KD, eq. 7, with the paper's mask of -1000 on the target's logit in the second part."""
    student, teacher = student / temperature, x.teacher / temperature
    target = torch.zeros_like(student, dtype=torch.bool).scatter_(1, x.targets[:, None], True)

    def target_or_not(probs):
        return torch.stack([(probs * target).sum(1), (probs * ~target).sum(1)], dim=1)

    of_target = F.kl_div(
        target_or_not(F.softmax(student, dim=1)).log(),
        target_or_not(F.softmax(teacher, dim=1)),
        reduction="batchmean",
    )
    of_others = F.kl_div(
        F.log_softmax(student - 1000.0 * target, dim=1),
        F.softmax(teacher - 1000.0 * target, dim=1),
        reduction="batchmean",
    )
    return (alpha * of_target + beta * of_others) * temperature**2


def kd_sparse(student, x: Logits, temperature=2.0):
    """Against 64 listed classes, with all others as one more class; tempered as a distribution over these 65."""

    def coarse(listed):
        rest = torch.log1p(-listed.exp().sum(1, keepdim=True))
        return F.log_softmax(torch.cat([listed, rest], dim=1) / temperature, dim=1)

    log_q = coarse(F.log_softmax(student, dim=1).gather(1, x.indices))
    return F.kl_div(log_q, coarse(x.log_probs), reduction="batchmean", log_target=True) * temperature**2


LOSSES = {
    "kd": kd,
    "reverse_kl": reverse_kl,
    "jsd": jsd,
    "skew_kl": skew_kl,
    "kd_cross_entropy": kd_cross_entropy,
    "dkd": dkd,
    "kd_sparse": kd_sparse,
}


def prepare(name: str, x: Logits, compiled: bool):
    """A function that takes one step and gives its seconds, the loss and the first element of the gradient."""
    loss_of = torch.compile(LOSSES[name], dynamic=False) if compiled else LOSSES[name]
    student = x.student.detach().requires_grad_()

    def step():
        start = time.perf_counter()
        loss = loss_of(student, x)
        loss.backward()
        gradient = float(student.grad[0, 0])
        value = float(loss.detach())
        student.grad = None
        del loss
        return time.perf_counter() - start, value, gradient

    return step


def prepare_floor(rows: int, classes: int):
    """Reads two buffers and writes a third, all of them warm."""
    a, b, c = torch.ones(rows, classes), torch.ones(rows, classes), torch.zeros(rows, classes)

    def step():
        start = time.perf_counter()
        torch.add(a, b, out=c)
        return time.perf_counter() - start, None, None

    return step
