"""Knowledge distillation (Hinton 2015, arXiv 1503.02531)."""

from shared import kept, kl, logit_pairs, rows, tempered


def cases():
    return [(name, {"temperature": t}, inputs) for name, inputs, t in logit_pairs("kd")]


@rows
def loss(config, inputs):
    student, teacher = tempered(config, inputs)
    return config["temperature"] ** 2 * kl(teacher, student)


def authors(authors, config, inputs):
    student, teacher = kept(inputs, "student_logits", "teacher_logits")
    t = config["temperature"]
    mdistiller = authors.load("mdistiller", "mdistiller/distillers/KD.py", "kd_loss")["kd_loss"]
    repdistiller = authors.load("RepDistiller", "distiller_zoo/KD.py", "DistillKL")["DistillKL"]
    return [
        ("mdistiller", "kd_loss", mdistiller(student, teacher, t)),
        ("RepDistiller", "DistillKL", repdistiller(t)(student, teacher)),
    ]
