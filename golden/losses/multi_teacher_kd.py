"""KD from several teachers, each weighted per sample by its confidence in the label (CA-MKD, Zhang 2022, arXiv
2201.00007)."""

import numpy as np
import torch
import torch.nn.functional as F

from shared import bell, integers, kl, mask, rows


def inputs(name, batch, teachers, classes, scale=2.0):
    """Teachers `[batch, teachers, classes]`; they differ in how sure they are."""
    name = f"multi_teacher_kd/{name}"
    sureness = np.float32(0.5) + np.arange(teachers, dtype=np.float32)
    return {
        "student_logits": bell(f"{name}/student_logits", (batch, classes), scale),
        "teacher_logits": bell(f"{name}/teacher_logits", (batch, teachers, classes), scale) * sureness[:, None],
        "targets": integers(f"{name}/targets", (batch,), classes),
    }


def cases():
    found = [(f"temperature_{t}", {"temperature": t}, inputs(f"temperature_{t}", 4, 3, 10)) for t in (1, 2, 4, 0.5)]
    found.append(("two_teachers", {"temperature": 2}, inputs("two_teachers", 5, 2, 6)))
    found.append(("batch_of_one", {"temperature": 2}, inputs("batch_of_one", 1, 4, 7)))
    found.append(("two_classes", {"temperature": 2}, inputs("two_classes", 5, 3, 2)))
    found.append(("odd_width", {"temperature": 4}, inputs("odd_width", 3, 5, 33, 1.5)))
    found.append(("scale_30", {"temperature": 4}, inputs("scale_30", 6, 3, 11, 30.0)))
    masked = inputs("rows_masked", 6, 3, 9)
    masked["mask"] = mask("multi_teacher_kd/rows_masked", (6,))
    found.append(("rows_masked", {"temperature": 2}, masked))
    # Two that say the same share the weight of the right answer; the third one is sure of another class.
    alike = inputs("alike", 3, 3, 5)
    alike["teacher_logits"][:, 1] = alike["teacher_logits"][:, 0]
    found.append(("two_alike", {"temperature": 1}, alike))
    return found


@rows
def loss(config, inputs):
    t, teachers, target = config["temperature"], inputs["teacher_logits"].unbind(1), inputs["targets"]
    likelihood = torch.stack([F.softmax(teacher, -1).gather(1, target[:, None])[:, 0] for teacher in teachers])
    # exp of the cross-entropy is one over the likelihood, so that the share is that of 1 / likelihood.
    odds = 1 / likelihood
    weights = (1 - odds / odds.sum(0)) / (len(teachers) - 1)
    student = F.log_softmax(inputs["student_logits"] / t, -1)
    divergences = torch.stack([kl(F.log_softmax(teacher / t, -1), student) for teacher in teachers])
    return t**2 * (weights * divergences).sum(0)


def authors(authors, config, inputs):
    # Their training loop has the weights of `CAMKD` once more beside `DistillKL`, and divides by the number of teachers
    # although the weights sum to 1; not here.
    camkd = authors.load("CA-MKD", "distiller_zoo/CAMKD.py", "CAMKD")["CAMKD"]()
    distill_kl = authors.load("CA-MKD", "distiller_zoo/KD.py", "DistillKL")["DistillKL"](config["temperature"])
    keep = inputs.get("mask", torch.ones_like(inputs["targets"], dtype=torch.bool))
    student, target = inputs["student_logits"][keep], inputs["targets"][keep]
    teachers = list(inputs["teacher_logits"][keep].unbind(1))
    _, weights = camkd([student] * len(teachers), teachers, teachers, target)
    divergences = torch.stack([distill_kl(student, teacher, is_ca=True) for teacher in teachers])
    return [("CA-MKD", "CAMKD's weights of DistillKL", (weights * divergences).sum(0).mean())]
