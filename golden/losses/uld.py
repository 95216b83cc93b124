"""Universal logit distillation (Boizard 2024, arXiv 2402.12030)."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

from authors import in_float64
from shared import bell, mask, rows


def cases():
    shapes = [
        # name, student, teacher, temperature, masked, scale
        ("rows", (4, 7), (4, 7), 1, False, 2.0),
        ("wider_teacher", (3, 5), (3, 9), 1, False, 2.0),
        ("narrower_teacher", (3, 9), (3, 4), 1, False, 2.0),
        ("temperature_2", (3, 6), (3, 8), 2, False, 2.0),
        ("temperature_0.5", (3, 6), (3, 8), 0.5, False, 1.0),
        ("tokens_padded", (3, 4, 6), (3, 4, 11), 1, "lengths", 2.0),
        ("tokens_masked", (2, 5, 7), (2, 5, 5), 2, "any", 2.0),
        ("batch_of_one", (1, 6), (1, 5), 1, False, 2.0),
        ("wide_vocabulary", (2, 120), (2, 150), 1, False, 3.0),
        ("scale_30", (4, 9), (4, 12), 1, False, 30.0),
    ]
    found = []
    for case, student, teacher, t, masked, scale in shapes:
        inputs = {
            "student_logits": bell(f"uld/{case}/student_logits", student, scale),
            "teacher_logits": bell(f"uld/{case}/teacher_logits", teacher, 1.25 * scale),
        }
        # Equal probabilities have no order: numbers a little apart, exact in float32 still.
        for logits in inputs.values():
            logits += (torch.arange(logits.size).reshape(logits.shape) % 61).numpy() / 4096.0
        if masked == "any":
            inputs["mask"] = mask(f"uld/{case}", student[:-1])
        elif masked:
            lengths = torch.tensor([student[1] - i % 3 for i in range(student[0])])
            inputs["mask"] = (torch.arange(student[1]) < lengths[:, None]).numpy()
        found.append((case, {"temperature": t}, inputs))
    return found


@rows
def loss(config, inputs):
    """The Wasserstein distance of the paper for equal costs: between the order statistics, numbers of one line."""
    t, sides = config["temperature"], []
    width = max(inputs[name].shape[-1] for name in ("student_logits", "teacher_logits"))
    for name in ("student_logits", "teacher_logits"):
        probs = F.softmax(inputs[name] / t, -1)
        sides.append(F.pad(probs, (0, width - probs.shape[-1])).sort(-1).values)
    return t**2 * torch.linalg.vector_norm(sides[0] - sides[1], ord=1, dim=-1)


def authors(authors, config, inputs):
    """Both take the tokens of an answer from its labels; the mean over sequences of means is weighted to one over tokens."""
    student, teacher, t = inputs["student_logits"], inputs["teacher_logits"], config["temperature"]
    if student.ndim == 2:
        student, teacher = student[None], teacher[None]
    kept = inputs.get("mask", torch.ones(student.shape[:2], dtype=torch.bool)).reshape(student.shape[:2])
    lengths = kept.sum(1)
    found = []
    if all(flags[:length].all() for flags, length in zip(kept, lengths, strict=True)):
        # Their own weights: one sequence at a time, each by its share of the tokens.
        original = authors.load("llm-recipes", "models/distillation_model.py", "DistillationLoss")["DistillationLoss"]
        function, value = original(1, 1, t, t), 0.0
        for b, length in enumerate(lengths):
            labels = torch.where(kept[b : b + 1], 1, -100)
            one = [SimpleNamespace(logits=side[b : b + 1].clone(), loss=0.0) for side in (student, teacher)]
            with in_float64():
                value = value + function(*one, labels, labels)[2] * length / lengths.sum()
        found.append(("llm-recipes", "DistillationLoss * temperature^2, sequences weighted by their tokens", value * t**2))
    if t == 1 and all(flags[:length].all() for flags, length in zip(kept, lengths, strict=True)):
        base = type("CrossEntropyLoss", (), {})
        name = "UniversalLogitDistillation"
        path = "code/criterions/universal_logit_distillation.py"
        loaded = authors.load("DSKD", path, name, CrossEntropyLoss=base)[name]
        criterion = loaded.__new__(loaded)
        criterion.padding_id = -100
        labels = torch.where(kept, 1, -100)
        output = {"label": labels.clone(), "teacher_any_label": labels.clone()}
        sides = [SimpleNamespace(logits=side.clone()) for side in (student, teacher)]
        with in_float64():
            value, _ = criterion.compute_universal_logit_distillation_loss(
                *sides, output, SimpleNamespace(teacher_model_type="any"), {}
            )
        found.append(("DSKD", "UniversalLogitDistillation over the number of tokens", value / kept.sum()))
    return found
