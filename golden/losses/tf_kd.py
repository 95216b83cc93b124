"""Teacher-free knowledge distillation by regularisation, Tf-KD_reg (Yuan 2020, arXiv 1909.11723)."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

from shared import bell, kept, kl, mask, on_cpu, rows, targets


def cases():
    shapes = [
        # name, shape, probability of the target, teacher temperature, scale
        ("temperature_20", (4, 10), 0.99, 20, 2.0),
        ("temperature_1", (4, 10), 0.99, 1, 2.0),
        ("probability_0.5", (3, 7), 0.5, 0.1, 2.0),
        ("probability_1", (3, 7), 1, 0.25, 2.0),
        ("batch_of_one", (1, 5), 0.9, 40, 1.5),
        ("two_classes", (5, 2), 0.9, 4, 2.0),
        ("wide_vocabulary", (2, 257), 0.99, 0.125, 3.0),
        ("scale_30", (4, 9), 0.99, 20, 30.0),
        ("rows_masked", (6, 8), 0.95, 10, 2.0),
        ("tokens_masked", (3, 4, 6), 0.99, 2, 2.0),
    ]
    found = []
    for name, shape, probability, t, scale in shapes:
        inputs = {"student_logits": bell(f"tf_kd/{name}", shape, scale)}
        inputs["targets"] = targets(f"tf_kd/{name}", inputs)
        if name.endswith("masked"):
            inputs["mask"] = mask(f"tf_kd/{name}", shape[:-1])
        found.append((name, {"target_probability": probability, "teacher_temperature": t}, inputs))
    return found


@rows
def loss(config, inputs):
    """As the code has it: the student is not tempered, the probabilities are taken for the teacher's logits."""
    student, target = inputs["student_logits"].flatten(0, -2), inputs["targets"].flatten()
    classes, a = student.shape[-1], config["target_probability"]
    virtual = torch.full_like(student, (1 - a) / (classes - 1)).scatter(-1, target[:, None], a)
    return kl(F.log_softmax(virtual / config["teacher_temperature"], -1), F.log_softmax(student, -1))


def authors(authors, config, inputs):
    """Their mean over rows and classes times a multiplier: the number of classes makes it the mean over rows."""
    if config["target_probability"] != 0.99:  # fixed in their code
        return []
    student, target = kept(inputs, "student_logits", "targets")
    path = "my_loss_function.py"
    names = "loss_kd_regularization"
    regularise = authors.load("Teacher-free-Knowledge-Distillation", path, names)[names]
    params = SimpleNamespace(
        reg_alpha=1.0, reg_temperature=config["teacher_temperature"], multiplier=student.shape[-1]
    )
    with on_cpu():
        value = regularise(student, target, params)
    return [("Teacher-free-Knowledge-Distillation", "loss_kd_regularization at alpha 1", value)]
