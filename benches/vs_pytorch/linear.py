"""Linear distillation: from hidden states through the output layers to a loss and the gradients of both inputs."""

import time

import torch
import torch.nn.functional as F

from inputs import Linear
from losses import jensen_shannon


def naive(loss: str, x: Linear):
    """All logits at once."""

    def loss_of(hidden, weight):
        student = hidden @ weight.t()
        with torch.no_grad():
            teacher = x.teacher_hidden @ x.teacher_weight.t()
        if loss == "jsd":
            return jensen_shannon(student, teacher)
        return F.kl_div(F.log_softmax(student, dim=1), F.softmax(teacher, dim=1), reduction="batchmean")

    return loss_of


def liger(loss: str, x: Linear, compiled: bool, chunk: int):
    """Liger's chunks. KD is its end of JSD at beta 0: KL from the teacher to the student."""
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    beta = {"jsd": 0.5, "kd": 0.0}[loss]
    module = LigerFusedLinearJSDLoss(
        weight_hard_loss=0.0, weight_soft_loss=1.0, beta=beta, compiled=compiled, chunk_size=chunk
    )
    return lambda hidden, weight: module(hidden, weight, x.teacher_hidden, x.teacher_weight, x.targets)


def prepare(loss: str, form: str, x: Linear):
    """A function that takes one step of a form and gives its seconds, the loss and one element of a gradient.

    The form is `products`, `naive`, `naive_compiled`, `liger@CHUNK` or `liger_compiled@CHUNK`, CHUNK in tokens.
    """
    form, _, chunk = form.partition("@")
    if form == "products":
        return prepare_products(x)
    forms = {
        "naive": lambda: naive(loss, x),
        "naive_compiled": lambda: torch.compile(naive(loss, x), dynamic=False),
        "liger": lambda: liger(loss, x, False, int(chunk)),
        "liger_compiled": lambda: liger(loss, x, True, int(chunk)),
    }
    loss_of = forms[form]()
    hidden, weight = x.hidden.detach().requires_grad_(), x.weight.detach().requires_grad_()

    def step():
        start = time.perf_counter()
        value = loss_of(hidden, weight)
        value.backward()
        gradient = float(weight.grad[0, 0])
        float(hidden.grad[0, 0])
        result = float(value.detach())
        hidden.grad = weight.grad = None
        del value
        return time.perf_counter() - start, result, gradient

    return step


def prepare_products(x: Linear):
    """The four matrix products that no form can do without, into buffers that are there: both sides' logits, and the
    gradients of hidden states and weights from one of the logits."""
    tokens, hidden, vocabulary = x.shape
    student, teacher = torch.zeros(tokens, vocabulary), torch.zeros(tokens, vocabulary)
    of_hidden, of_weight = torch.zeros(tokens, hidden), torch.zeros(vocabulary, hidden)

    def step():
        start = time.perf_counter()
        torch.mm(x.hidden, x.weight.t(), out=student)
        torch.mm(x.teacher_hidden, x.teacher_weight.t(), out=teacher)
        torch.mm(student, x.weight, out=of_hidden)
        torch.mm(student.t(), x.hidden, out=of_weight)
        return time.perf_counter() - start, None, None

    return step
