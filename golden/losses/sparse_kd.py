"""KD from a sparse teacher: the k most probable classes and their tail."""

import numpy as np
import torch
import torch.nn.functional as F

from shared import kept, kl, mask, pair, rows


def cases():
    shapes = [
        # name, shape, k, tail, sparse temperature, temperature, scale
        ("bucket", (4, 12), 3, "bucket", 1, 1, 1.5),
        ("bucket_tempered", (4, 12), 4, "bucket", 1, 4, 1.5),
        ("bucket_cached_at_2", (3, 15), 5, "bucket", 2, 2, 2.0),
        ("bucket_cached_at_4_used_at_2", (3, 15), 4, "bucket", 4, 2, 3.0),
        ("bucket_temperature_0.5", (3, 10), 3, "bucket", 1, 0.5, 1.0),
        ("bucket_k_1", (5, 6), 1, "bucket", 1, 2, 1.0),
        ("bucket_batch_of_one", (1, 9), 2, "bucket", 1, 1, 1.0),
        ("bucket_small_tail", (4, 20), 8, "bucket", 1, 2, 2.5),
        ("bucket_unsorted", (3, 14), 5, "bucket", 1, 2, 1.5),
        ("bucket_not_the_top", (3, 14), 5, "bucket", 1, 2, 1.0),
        ("bucket_scale_30", (4, 16), 4, "bucket", 8, 8, 30.0),
        ("bucket_tokens", (2, 4, 13), 4, "bucket", 1, 2, 1.5),
        ("bucket_tokens_masked", (2, 5, 13), 4, "bucket", 2, 1, 1.5),
        ("bucket_wide_vocabulary", (2, 257), 16, "bucket", 1, 1, 2.5),
        ("renormalise", (4, 12), 3, "renormalise", 1, 1, 1.5),
        ("renormalise_tempered", (4, 12), 5, "renormalise", 1, 4, 1.5),
        ("renormalise_cached_at_2", (3, 15), 5, "renormalise", 2, 4, 2.0),
        ("renormalise_whole_vocabulary", (3, 7), 7, "renormalise", 1, 2, 1.5),
        ("renormalise_k_1", (3, 7), 1, "renormalise", 1, 2, 1.5),
        ("renormalise_scale_30", (4, 16), 6, "renormalise", 1, 1, 30.0),
        ("renormalise_tokens_masked", (3, 4, 13), 4, "renormalise", 1, 2, 1.5),
    ]
    found = []
    for name, shape, k, tail, at, t, scale in shapes:
        inputs = pair(f"sparse_kd/{name}", shape, scale)
        teacher = inputs.pop("teacher_logits") / at
        teacher -= np.log(np.exp(teacher - teacher.max(-1, keepdims=True)).sum(-1, keepdims=True)) + teacher.max(
            -1, keepdims=True
        )
        indices = np.argsort(-teacher, -1, kind="stable")
        indices = indices[..., 1 : k + 1] if name.endswith("not_the_top") else indices[..., :k]
        if name.endswith("unsorted"):
            indices = np.roll(indices, 2, axis=-1)
        # Rounded down to multiples of 1/256, so that the kept mass stays below 1.
        inputs["log_probs"] = np.floor(np.take_along_axis(teacher, indices, -1) * 256) / 256
        inputs["indices"] = indices
        if name.endswith("masked"):
            inputs["mask"] = mask(f"sparse_kd/{name}", shape[:-1])
        found.append((name, {"temperature": t, "k": k, "tail": tail, "sparse_temperature": at}, inputs))
    return found


@rows
def loss(config, inputs):
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


def authors(authors, config, inputs):
    """TRL builds the coarse distribution; the tempering is written out on probabilities."""
    student, teacher = kept(inputs, "student_logits", "log_probs")
    mask = inputs.get("mask")
    indices = inputs["indices"].flatten(0, -2)[slice(None) if mask is None else mask.flatten()]
    at, t = config["sparse_temperature"], config["temperature"]
    student = (student / at - (student / at).logsumexp(-1, keepdim=True)).gather(-1, indices)
    if config["tail"] == "bucket":
        bucket = authors.load("trl", "trl/experimental/sdpo/loss_utils.py", "add_tail_bucket")["add_tail_bucket"]
        student, teacher = bucket(student), bucket(teacher)
    p, q = teacher.exp() ** (at / t), student.exp() ** (at / t)
    p, q = p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)
    what = ("trl", "add_tail_bucket, then tempered by powers of probabilities")
    if config["tail"] != "bucket":
        what = ("written out", "powers of probabilities")
    return [(*what, t**2 * (p * (p / q).log()).sum(-1).mean())]
