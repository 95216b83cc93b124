"""Each loss once more, in PyTorch, written from its paper: the source of every number in `losses/`.

`F.kl_div(log q, log p, log_target=True)` is PyTorch's own p * (log p - log q). A function takes (config, inputs) and
returns (value, per_sample); `per_sample` is None where a loss is not a mean over samples. House convention for logit
losses: nats, times temperature squared, mean over unmasked rows.
"""

import torch
import torch.nn.functional as F


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


@rows
def cross_entropy(config, inputs):
    logits = inputs["student_logits"].flatten(0, -2)
    if "target_probs" in inputs:
        target = inputs["target_probs"].flatten(0, -2)
    else:
        target = inputs["targets"].flatten()
    return F.cross_entropy(logits, target, reduction="none", label_smoothing=config["label_smoothing"])


@rows
def kd(config, inputs):
    student, teacher = tempered(config, inputs)
    return config["temperature"] ** 2 * kl(teacher, student)


@rows
def reverse_kl(config, inputs):
    student, teacher = tempered(config, inputs)
    return config["temperature"] ** 2 * kl(student, teacher)


@rows
def jsd(config, inputs):
    student, teacher = tempered(config, inputs)
    beta = torch.tensor(config["beta"], dtype=student.dtype)
    if beta == 0:
        divergence = kl(teacher, student)
    elif beta == 1:
        divergence = kl(student, teacher)
    else:
        mixture = torch.logaddexp(student + torch.log(1 - beta), teacher + torch.log(beta))
        divergence = beta * kl(teacher, mixture) + (1 - beta) * kl(student, mixture)
    return config["temperature"] ** 2 * divergence


def binary(log_probs, target):
    """[log p(target), log p(not target)] and the log-probabilities of the others given that it is not the target."""
    classes = log_probs.shape[-1]
    others = torch.stack([torch.tensor([c for c in range(classes) if c != int(t)]) for t in target])
    rest = log_probs.gather(1, others)
    log_rest = rest.logsumexp(-1, keepdim=True)
    return torch.cat([log_probs.gather(1, target[:, None]), log_rest], -1), rest - log_rest


@rows
def dkd(config, inputs):
    student, teacher = tempered(config, inputs)
    target = inputs["targets"].flatten()
    student_pair, student_rest = binary(student.flatten(0, -2), target)
    teacher_pair, teacher_rest = binary(teacher.flatten(0, -2), target)
    tckd, nckd = kl(teacher_pair, student_pair), kl(teacher_rest, student_rest)
    return config["temperature"] ** 2 * (config["alpha"] * tckd + config["beta"] * nckd)


def pearson(a, b):
    """Pearson correlation along the last axis; the authors add 1e-8 to the product of the norms."""
    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1) + 1e-8)


def dist(config, inputs):
    student, teacher = (log_probs.exp() for log_probs in tempered(config, inputs))
    scale = config["temperature"] ** 2
    inter = 1 - pearson(student, teacher)
    intra = 1 - pearson(student.T, teacher.T).mean()
    per_sample = scale * (config["beta"] * inter + config["gamma"] * intra)
    return per_sample.mean(), per_sample


@rows
def sparse_kd(config, inputs):
    at, t = config["sparse_temperature"], config["temperature"]
    log_probs, indices = inputs["log_probs"], inputs["indices"]
    everything = F.log_softmax(inputs["student_logits"] / at, -1)
    student, teacher = everything.gather(-1, indices), log_probs
    if config["tail"] == "bucket":
        kept = torch.zeros_like(everything, dtype=torch.bool).scatter(-1, indices, True)
        student_tail = everything.masked_fill(kept, -torch.inf).logsumexp(-1, keepdim=True)
        teacher_tail = torch.log1p(-log_probs.exp().sum(-1, keepdim=True))
        student, teacher = torch.cat([student, student_tail], -1), torch.cat([teacher, teacher_tail], -1)
    return t**2 * kl(F.log_softmax(teacher * at / t, -1), F.log_softmax(student * at / t, -1))


def hint(config, inputs):
    student, teacher = inputs["student"], inputs["teacher"]
    return F.mse_loss(student, teacher), F.mse_loss(student, teacher, reduction="none").flatten(1).mean(1)


def attention_transfer(config, inputs):
    student, teacher = inputs["student"], inputs["teacher"]
    side = min(student.shape[2], teacher.shape[2])
    maps = []
    for features in (student, teacher):
        if features.shape[2] > side:
            features = F.adaptive_avg_pool2d(features, (side, side))
        energy = features.pow(config["p"]).mean(1).flatten(1)
        maps.append(energy / energy.pow(2).sum(1, keepdim=True).sqrt().clamp(min=1e-12))
    per_sample = (maps[0] - maps[1]).pow(2).mean(1)
    return per_sample.mean(), per_sample


def sp(config, inputs):
    grams = []
    for features in (inputs["student"].flatten(1), inputs["teacher"].flatten(1)):
        gram = features @ features.T
        grams.append(gram / gram.pow(2).sum(1, keepdim=True).sqrt().clamp(min=1e-12))
    per_sample = (grams[0] - grams[1]).pow(2).mean(1)
    return per_sample.mean(), per_sample


def rkd(config, inputs):
    relations = []
    for features in (inputs["student"].flatten(1), inputs["teacher"].flatten(1)):
        n = len(features)
        difference = features[None, :, :] - features[:, None, :]
        apart = ~torch.eye(n, dtype=torch.bool)
        distance = torch.zeros(n, n, dtype=features.dtype)
        distance[apart] = difference[apart].pow(2).sum(-1).clamp(min=1e-12).sqrt()
        length = difference.norm(dim=2, keepdim=True)
        # Two equal rows have no direction between them: no angle and no gradient.
        edge = torch.where(length > 0, difference / torch.where(length > 0, length, 1.0), 0.0)
        relations.append((distance / distance[apart].mean(), torch.einsum("ajd,akd->ajk", edge, edge)))
    (student_distance, student_angle), (teacher_distance, teacher_angle) = relations
    by_distance = F.smooth_l1_loss(student_distance, teacher_distance, reduction="none").mean(1)
    by_angle = F.smooth_l1_loss(student_angle, teacher_angle, reduction="none").mean((1, 2))
    per_sample = config["distance_weight"] * by_distance + config["angle_weight"] * by_angle
    return per_sample.mean(), per_sample


def review_kd(config, inputs):
    per_sample = 0.0
    stages = sum(name.startswith("student_") for name in inputs)
    for stage in range(stages):
        student, teacher = inputs[f"student_{stage}"], inputs[f"teacher_{stage}"]
        levels, weights = [(student, teacher)], [1.0]
        for side in (4, 2, 1):
            if side < student.shape[2]:
                levels.append(tuple(F.adaptive_avg_pool2d(f, (side, side)) for f in (student, teacher)))
                weights.append(weights[-1] / 2)
        distances = [(s - t).pow(2).flatten(1).mean(1) for s, t in levels]
        per_sample = per_sample + sum(w * d for w, d in zip(weights, distances, strict=True)) / sum(weights)
    return per_sample.mean(), per_sample
