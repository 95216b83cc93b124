"""Regression on the logits (Ba and Caruana 2014, arXiv 1312.6184; Kim 2021, arXiv 2105.08919)."""

import torch.nn.functional as F

from shared import kept, logit_pairs, rows


def cases():
    found = []
    for i, (name, inputs, _) in enumerate(logit_pairs("logit_mse")):
        if not name.startswith("temperature_") and "temperature" not in name or name == "temperature_1":
            # Half of the cases with each value of the switch.
            centred = i % 2 == 1
            if name in ("offset_1000", "extreme"):
                # 2000 apart, squared, leaves nothing of the rest in float32.
                centred = True
            found.append((name, {"centred": centred}, inputs))
    for centred in (False, True):
        name, inputs, _ = logit_pairs(f"logit_mse/{centred}")[0]
        found.append((f"centred_{centred}", {"centred": centred}, inputs))
    return found


@rows
def loss(config, inputs):
    student, teacher = inputs["student_logits"], inputs["teacher_logits"]
    if config["centred"]:
        student, teacher = (logits - logits.mean(-1, keepdim=True) for logits in (student, teacher))
    return F.mse_loss(student, teacher, reduction="none").mean(-1)


def authors(authors, config, inputs):
    student, teacher = kept(inputs, "student_logits", "teacher_logits")
    if config["centred"]:
        return []
    path = "code/image_classfication/tools/losses.py"
    return [("kd_data", "mse_logit", authors.load("kd_data", path, "mse_logit")["mse_logit"](student, teacher))]
