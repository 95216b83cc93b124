"""What the losses' files share: inputs that show a wrong axis, sign or factor, and the house conventions.

Inputs are numpy arrays whose floats are all exact in float32. House convention for logit losses: nats, times
temperature squared, mean over unmasked rows. `F.kl_div(log q, log p, log_target=True)` is PyTorch's own
p * (log p - log q).
"""

from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F

from random_numbers import bell, integers, uniform

__all__ = ["bell", "integers", "uniform"]  # for the losses' files


def mask(name, shape):
    """About two thirds true, pseudo-random; the first entry is masked out and the last one kept."""
    flags = uniform(f"{name}/mask", int(np.prod(shape))) < 0.67
    flags[0], flags[-1] = False, True
    return flags.reshape(shape)


def pair(name, shape, scale):
    """Student and teacher logits; the teacher is a quarter more confident."""
    return {
        "student_logits": bell(f"{name}/student_logits", shape, scale),
        "teacher_logits": bell(f"{name}/teacher_logits", shape, 1.25 * scale),
    }


def logit_pairs(loss):
    """(name, inputs, temperature): shapes and magnitudes that every loss on two sets of logits must survive."""

    def make(name, shape, scale=2.0, temperature=1, masked=False):
        inputs = pair(f"{loss}/{name}", shape, scale)
        if masked:
            inputs["mask"] = mask(f"{loss}/{name}", shape[:-1])
        return name, inputs, temperature

    found = [make(f"temperature_{t}", (4, 10), temperature=t) for t in (1, 2, 4, 0.5)]
    found += [
        make("batch_of_one", (1, 7), temperature=2),
        make("two_classes", (5, 2), temperature=2),
        make("odd_width", (3, 33), 3.0, 4),
        make("wide_vocabulary", (2, 257), 3.0, 1),
        make("rows_masked", (6, 12), temperature=2, masked=True),
        make("tokens", (2, 5, 11), temperature=2),
        make("tokens_masked", (3, 4, 9), temperature=4, masked=True),
        make("tokens_masked_temperature_0.5", (2, 6, 17), 1.5, 0.5, masked=True),
        make("scale_30", (6, 20), 30.0, 1),
        make("scale_30_temperature_4", (5, 21), 30.0, 4),
    ]
    name, inputs, temperature = make("offset_1000", (3, 8), temperature=2)
    inputs["student_logits"] += 1000.0
    inputs["teacher_logits"] -= 1000.0
    found.append((name, inputs, temperature))
    name, inputs, temperature = make("student_is_teacher", (3, 8), temperature=2)
    inputs["teacher_logits"] = inputs["student_logits"].copy()
    found.append((name, inputs, temperature))
    student = np.array([[1e4, -1e4, 0.0, 5.0], [3.0, 1e4, 9999.0, -1e4], [0.5, -2.0, 1.0, 0.25]])
    teacher = np.array([[-1e4, 1e4, 2.0, 1.0], [1e4, 9998.0, -1e4, 0.0], [-1e4, 1e4, -1.0, 3.0]])
    found.append(("extreme", {"student_logits": student, "teacher_logits": teacher}, 1))
    return found


def targets(name, inputs):
    """Class ids, one per row."""
    shape = inputs["student_logits"].shape
    return integers(f"{name}/targets", shape[:-1], shape[-1])


def features(name, student, teacher=None, scale=1.0):
    return {
        "student": bell(f"{name}/student", student, scale),
        "teacher": bell(f"{name}/teacher", teacher or student, 1.5 * scale),
    }


def kl(log_p, log_q):
    """KL(p || q) of each row, in nats."""
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)


def rows(of_row):
    """Lifts a per-row function to (mean over unmasked rows, all rows): `[..., classes]` is flattened row-major."""

    def loss(config, inputs):
        per_row = of_row(config, inputs).reshape(-1)
        mask = inputs.get("mask")
        kept = per_row if mask is None else per_row[mask.reshape(-1)]
        return kept.mean(), per_row

    return loss


def tempered(config, inputs):
    """Log-probabilities of student and teacher at the temperature."""
    t = config["temperature"]
    return F.log_softmax(inputs["student_logits"] / t, -1), F.log_softmax(inputs["teacher_logits"] / t, -1)


def kept(inputs, *names):
    """The named inputs as rows, masked rows removed."""
    mask = inputs.get("mask")
    keep = slice(None) if mask is None else mask.flatten()
    return [(inputs[n].flatten(0, -2) if inputs[n].is_floating_point() else inputs[n].flatten())[keep] for n in names]


@contextmanager
def on_cpu():
    """For code that calls `.cuda()` whatever the machine has: there it gives the tensor itself."""
    with patch.object(torch.Tensor, "cuda", lambda tensor, *_: tensor):
        yield


def trl_jsd(authors, config, inputs):
    """TRL's generalised Jensen-Shannon divergence, brought to the house convention."""
    path = "trl/experimental/gkd/gkd_trainer.py"
    trl = authors.load("trl", path, "generalized_jsd_loss")["generalized_jsd_loss"]
    logits = inputs["student_logits"], inputs["teacher_logits"]
    mask = inputs.get("mask")
    if mask is None:
        logits = tuple(kept(inputs, "student_logits", "teacher_logits"))
        labels = None
    else:
        labels = torch.where(mask, 0, -100)
    value = trl(*logits, labels=labels, beta=config["beta"], temperature=config["temperature"])
    return [("trl", "generalized_jsd_loss * temperature^2", value * config["temperature"] ** 2)]
