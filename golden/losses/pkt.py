"""Probabilistic knowledge transfer, PKT (Passalis 2018, arXiv 1803.10837)."""

import torch.nn.functional as F

from shared import bell, features

PER_SAMPLE = "mean over the samples that the sample is compared with, itself included"


def cases():
    shapes = [
        ("default", (4, 3), (4, 3)),
        ("wider_teacher", (5, 2), (5, 6)),
        ("wider_student", (3, 7), (3, 2)),
        ("batch_of_two", (2, 2), (2, 3)),
        ("images", (4, 2, 3, 3), (4, 3, 2, 2)),
        ("scale_30", (5, 3), (5, 4)),
    ]
    scale = {"scale_30": 30.0}
    found = [(name, {}, features(f"pkt/{name}", s, t, scale.get(name, 1.0))) for name, s, t in shapes]
    # Nearly opposite directions: a probability of almost nothing for the student.
    opposite = features("pkt/opposite", (4, 3))
    opposite["student"][1] = -2.0 * opposite["student"][0]
    opposite["student"][1, 0] += 1.0
    found.append(("opposite", {}, opposite))
    batch_of_one = {"student": bell("pkt/one/student", (1, 4), 1.0), "teacher": bell("pkt/one/teacher", (1, 4), 1.0)}
    return [*found, ("batch_of_one", {}, batch_of_one)]


def loss(config, inputs):
    probabilities = []
    for features in (inputs["student"].flatten(1), inputs["teacher"].flatten(1)):
        unit = features / (features.norm(dim=1, keepdim=True) + 1e-7)
        kernel = 0.5 * (1 + unit @ unit.T)
        probabilities.append(kernel / kernel.sum(1, keepdim=True) + 1e-7)
    student, teacher = probabilities
    # The kernel's own probability weighs the logarithm, the bounded one stands inside.
    pointwise = F.kl_div(student.log(), teacher.log(), reduction="none", log_target=True) * (teacher - 1e-7) / teacher
    per_sample = pointwise.mean(1)
    return per_sample.mean(), per_sample


def authors(authors, config, inputs):
    flat = inputs["student"].flatten(1), inputs["teacher"].flatten(1)
    repdistiller = authors.load("RepDistiller", "distiller_zoo/PKT.py", "PKT")["PKT"]
    path = "torchdistill/losses/mid_level.py"
    torchdistill = authors.load("torchdistill", path, "PKTLoss")["PKTLoss"]("", "", "", "")
    return [
        # Each writes into its arguments in place.
        ("RepDistiller", "PKT", repdistiller()(*(f * 1.0 for f in flat))),
        ("torchdistill", "PKTLoss", torchdistill.cosine_similarity_loss(*(f * 1.0 for f in flat))),
    ]
