"""Cross-entropy with label smoothing, or with probabilities."""

import numpy as np
import torch.nn.functional as F

from shared import bell, kept, logit_pairs, mask, rows, targets


def cases():
    found = []
    for name, inputs, _ in logit_pairs("cross_entropy"):
        if name.startswith("temperature") or name in ("student_is_teacher", "scale_30_temperature_4"):
            continue
        del inputs["teacher_logits"]
        inputs["targets"] = targets(f"cross_entropy/{name}", inputs)
        smoothing = 0.1 if name in ("tokens_masked", "odd_width", "scale_30") else 0.0
        found.append((name, {"label_smoothing": smoothing}, inputs))
    for smoothing in (0.0, 0.1, 0.5, 1.0):
        name = f"label_smoothing_{smoothing:g}"
        inputs = {"student_logits": bell(f"cross_entropy/{name}", (5, 9), 2.0)}
        found.append((name, {"label_smoothing": smoothing}, {**inputs, "targets": targets(name, inputs)}))
    shapes = [
        ("rows", (4, 10), 0.0),
        ("rows_smoothed", (4, 10), 0.2),
        ("masked", (5, 6), 0.0),
        ("tokens", (2, 4, 7), 0.1),
    ]
    for name, shape, smoothing in shapes:
        name = f"target_probs_{name}"
        inputs = {
            "student_logits": bell(f"cross_entropy/{name}", shape, 2.0),
            "target_probs": probabilities(name, shape),
        }
        if name.endswith(("masked", "tokens")):
            inputs["mask"] = mask(name, shape[:-1])
        found.append((name, {"label_smoothing": smoothing}, inputs))
    return found


def probabilities(name, shape):
    """Rows of multiples of 1/1024 that sum to exactly 1."""
    weights = np.exp(bell(f"{name}/target_probs", shape, 1.5)).reshape(-1, shape[-1])
    counts = np.floor(weights / weights.sum(1, keepdims=True) * 1024)
    counts[np.arange(len(counts)), counts.argmax(1)] += 1024 - counts.sum(1)
    return (counts / 1024).reshape(shape)


@rows
def loss(config, inputs):
    logits = inputs["student_logits"].flatten(0, -2)
    if "target_probs" in inputs:
        target = inputs["target_probs"].flatten(0, -2)
    else:
        target = inputs["targets"].flatten()
    return F.cross_entropy(logits, target, reduction="none", label_smoothing=config["label_smoothing"])


def authors(authors, config, inputs):
    """Written out: (1 - e) * -log p(target) + e * mean(-log p)."""
    name = "target_probs" if "target_probs" in inputs else "targets"
    logits, target = kept(inputs, "student_logits", name)
    if name == "targets":
        target = F.one_hot(target, logits.shape[-1]).to(logits.dtype)
    e = config["label_smoothing"]
    target = (1 - e) * target + e / logits.shape[-1]
    log_probs = logits - logits.logsumexp(-1, keepdim=True)
    return [("written out", "-sum(q log p)", -(target * log_probs).sum(-1).mean())]
