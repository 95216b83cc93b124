"""Random-sampling KD (Anshumann 2025, arXiv 2503.16870). The authors' code is announced, not published."""

import numpy as np
import torch
import torch.nn.functional as F

from shared import bell, integers, mask, rows


def cases():
    shapes = [
        # name, student, draws, temperature, masked, scale, power of the proposal
        ("draws", (4, 9), 5, 1, False, 2.0, 1),
        ("one_draw", (3, 7), 1, 1, False, 2.0, 1),
        ("temperature_2", (3, 8), 6, 2, False, 2.0, 1),
        ("temperature_0.5", (3, 8), 4, 0.5, False, 1.0, 1),
        ("tempered_proposal", (4, 9), 6, 1, False, 2.0, 0.5),
        ("tokens_masked", (2, 4, 7), 5, 2, True, 2.0, 0.7),
        ("batch_of_one", (1, 6), 4, 1, False, 2.0, 1),
        ("more_draws_than_classes", (2, 4), 11, 1, False, 2.0, 1),
        ("scale_30", (4, 9), 5, 1, False, 30.0, 1),
    ]
    found = []
    for case, shape, draws, t, masked, scale, power in shapes:
        # Draws need not follow a distribution for the formula: any classes, their probabilities and their weights.
        teacher = F.log_softmax(torch.tensor(bell(f"random_kd/{case}/teacher", shape, scale)) / t, -1)
        proposal = F.log_softmax(power * teacher, -1)
        indices = torch.tensor(integers(f"random_kd/{case}/indices", (*shape[:-1], draws), shape[-1]))
        weights = (teacher - proposal).gather(-1, indices).exp() / draws
        inputs = {
            "student_logits": bell(f"random_kd/{case}/student_logits", shape, scale),
            "indices": indices.numpy(),
            "teacher_log_probs": exact(teacher.gather(-1, indices)),
            "weights": exact(weights),
        }
        if masked:
            inputs["mask"] = mask(f"random_kd/{case}", shape[:-1])
        found.append((case, {"temperature": t}, inputs))
    return found


def exact(tensor):
    """Rounded to float32."""
    return tensor.numpy().astype(np.float32).astype(np.float64)


@rows
def loss(config, inputs):
    """Cross-entropy with the weighted frequencies over all classes, less the same of the teacher."""
    t, student = config["temperature"], inputs["student_logits"]
    estimate = torch.zeros_like(student).scatter_add(-1, inputs["indices"], inputs["weights"])
    constant = (inputs["weights"] * inputs["teacher_log_probs"]).sum(-1)
    return t**2 * (constant - (estimate * F.log_softmax(student / t, -1)).sum(-1))
