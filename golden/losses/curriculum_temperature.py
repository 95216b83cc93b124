"""Curriculum temperature, CTKD (Li 2023, arXiv 2211.16231), with one temperature for all samples, on KD."""

import numpy as np
import torch
import torch.nn.functional as F

from shared import kept, kl, logit_pairs, on_cpu, rows

RAW = "parameter.raw_temperature"


def cases():
    found = []
    # Position of the temperature, least temperature, range, strength of the reversal. The temperatures are below 5: at
    # the 15.6 where the authors begin, float32 leaves four digits of the gradient of the temperature, in PyTorch too.
    settings = [(1.0, 1, 4, 1), (-2.0, 1, 20, 0.5), (0.25, 0.5, 4, 0.25), (-0.75, 2, 8, 0)]
    for i, (name, inputs, _) in enumerate(logit_pairs("curriculum_temperature")):
        if "temperature" in name and name != "temperature_1" and name != "temperature_2" or name == "extreme":
            continue
        raw, least, span, reversal = settings[i % 4]
        inputs[RAW] = np.array([raw])
        config = {"temperature_min": least, "temperature_range": span, "reversal": reversal}
        found.append((name, config, inputs))
    return found


def kd_at(config, student, teacher, raw):
    """KD of each row at the temperature of `raw`, which both sides and the factor depend on."""
    t = config["temperature_min"] + config["temperature_range"] * torch.sigmoid(raw)
    return t**2 * kl(F.log_softmax(teacher / t, -1), F.log_softmax(student / t, -1))


class Reversed(torch.autograd.Function):
    """The identity, whose gradient is multiplied by minus the strength."""

    @staticmethod
    def forward(ctx, x, strength):
        ctx.strength = strength
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -ctx.strength * gradient, None


@rows
def loss(config, inputs):
    raw = Reversed.apply(inputs[RAW], config["reversal"])
    return kd_at(config, inputs["student_logits"], inputs["teacher_logits"], raw)


def surrogate(config, at):
    """A loss with the same gradient and no reversal: what the student descends, less what the temperature climbs."""

    @rows
    def two_sided(config, moved):
        teacher = at["teacher_logits"]
        student_side = kd_at(config, moved["student_logits"], teacher, at[RAW])
        return student_side - config["reversal"] * kd_at(config, at["student_logits"], teacher, moved[RAW])

    return two_sided


def authors(authors, config, inputs):
    student, teacher = kept(inputs, "student_logits", "teacher_logits")
    names = ["GradientReversalFunction", "GradientReversal"]
    layer = authors.load("CTKD", "models/temp_global.py", *names, Function=torch.autograd.Function)
    kd = authors.load("CTKD", "distiller_zoo/KD.py", "DistillKL")["DistillKL"]()
    # Their schedule runs from 0 to -1 and multiplies the gradient.
    raw = layer["GradientReversal"]()(inputs[RAW], -config["reversal"])
    with on_cpu():
        value = kd(student, teacher, config["temperature_min"] + config["temperature_range"] * torch.sigmoid(raw))
    return [("CTKD", "GradientReversal and DistillKL", value.sum())]
