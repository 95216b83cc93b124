"""Inputs of the loss cases: asymmetric pseudo-random numbers, chosen so that a wrong axis, sign or factor shows.

`cases(loss)` gives [(name, config, inputs)], inputs as numpy arrays whose floats are all exact in float32.
"""

import numpy as np

from random_numbers import bell, integers, uniform


def mask(name, shape):
    """About two thirds true, pseudo-random; the first entry is masked out and the last one kept."""
    flags = uniform(f"{name}/mask", int(np.prod(shape))) < 0.67
    flags[0], flags[-1] = False, True
    return flags.reshape(shape)


def pair(name, shape, scale):
    """Student and teacher logits; the teacher is a quarter more confident."""
    return {
        "student_logits": bell(f"{name}/student_logits", shape, scale),
        "teacher_logits": bell(f"{name}/teacher_logits", shape, 1.25 * scale),
    }


def logit_pairs(loss):
    """(name, inputs, temperature): shapes and magnitudes that every loss on two sets of logits must survive."""

    def make(name, shape, scale=2.0, temperature=1, masked=False):
        inputs = pair(f"{loss}/{name}", shape, scale)
        if masked:
            inputs["mask"] = mask(f"{loss}/{name}", shape[:-1])
        return name, inputs, temperature

    found = [make(f"temperature_{t}", (4, 10), temperature=t) for t in (1, 2, 4, 0.5)]
    found += [
        make("batch_of_one", (1, 7), temperature=2),
        make("two_classes", (5, 2), temperature=2),
        make("odd_width", (3, 33), 3.0, 4),
        make("wide_vocabulary", (2, 257), 3.0, 1),
        make("rows_masked", (6, 12), temperature=2, masked=True),
        make("tokens", (2, 5, 11), temperature=2),
        make("tokens_masked", (3, 4, 9), temperature=4, masked=True),
        make("tokens_masked_temperature_0.5", (2, 6, 17), 1.5, 0.5, masked=True),
        make("scale_30", (6, 20), 30.0, 1),
        make("scale_30_temperature_4", (5, 21), 30.0, 4),
    ]
    name, inputs, temperature = make("offset_1000", (3, 8), temperature=2)
    inputs["student_logits"] += 1000.0
    inputs["teacher_logits"] -= 1000.0
    found.append((name, inputs, temperature))
    name, inputs, temperature = make("student_is_teacher", (3, 8), temperature=2)
    inputs["teacher_logits"] = inputs["student_logits"].copy()
    found.append((name, inputs, temperature))
    student = np.array([[1e4, -1e4, 0.0, 5.0], [3.0, 1e4, 9999.0, -1e4], [0.5, -2.0, 1.0, 0.25]])
    teacher = np.array([[-1e4, 1e4, 2.0, 1.0], [1e4, 9998.0, -1e4, 0.0], [-1e4, 1e4, -1.0, 3.0]])
    found.append(("extreme", {"student_logits": student, "teacher_logits": teacher}, 1))
    return found


def targets(name, inputs):
    """Class ids, one per row."""
    shape = inputs["student_logits"].shape
    return integers(f"{name}/targets", shape[:-1], shape[-1])


def cross_entropy():
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


def kd():
    return [(name, {"temperature": t}, inputs) for name, inputs, t in logit_pairs("kd")]


def reverse_kl():
    return [(name, {"temperature": t}, inputs) for name, inputs, t in logit_pairs("reverse_kl")]


def jsd():
    betas = [0, 0.1, 0.5, 0.9, 1]
    found = []
    for beta in betas:
        for t in (1, 2):
            name = f"beta_{beta}_temperature_{t}"
            found.append((name, {"beta": beta, "temperature": t}, pair(f"jsd/{name}", (3, 7), 2.0)))
    for i, (name, inputs, t) in enumerate(logit_pairs("jsd")):
        found.append((name, {"beta": betas[(2 + 3 * i) % 5] if name != "extreme" else 0.1, "temperature": t}, inputs))
    return found


def dkd():
    found = []
    weights = [(1, 8), (1, 2), (0.5, 3), (1, 8)]
    for i, (name, inputs, t) in enumerate(logit_pairs("dkd")):
        inputs["targets"] = targets(f"dkd/{name}", inputs)
        alpha, beta = weights[i % 4]
        found.append((name, {"alpha": alpha, "beta": beta, "temperature": t}, inputs))
    for name, alpha, beta in [("target_part_only", 1, 0), ("other_part_only", 0, 1)]:
        inputs = pair(f"dkd/{name}", (4, 9), 2.0)
        inputs["targets"] = targets(f"dkd/{name}", inputs)
        found.append((name, {"alpha": alpha, "beta": beta, "temperature": 4}, inputs))
    return found


def dist():
    found = []
    weights = [(1, 1), (2, 0.5), (1, 2)]
    for i, (name, inputs, t) in enumerate(logit_pairs("dist")):
        if inputs["student_logits"].ndim == 2 and "mask" not in inputs and name != "extreme":
            beta, gamma = weights[i % 3]
            found.append((name, {"beta": beta, "gamma": gamma, "temperature": t}, inputs))
    for name, beta, gamma in [("inter_only", 1, 0), ("intra_only", 0, 1)]:
        found.append((name, {"beta": beta, "gamma": gamma, "temperature": 2}, pair(f"dist/{name}", (5, 8), 2.0)))
    return found


def sparse_kd():
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


def features(name, student, teacher=None, scale=1.0):
    return {
        "student": bell(f"{name}/student", student, scale),
        "teacher": bell(f"{name}/teacher", teacher or student, 1.5 * scale),
    }


def hint():
    shapes = [
        ("rows", (4, 6)),
        ("batch_of_one", (1, 5)),
        ("tokens", (2, 3, 5)),
        ("images", (3, 2, 4, 5)),
        ("large", (2, 9)),
    ]
    return [(n, {}, features(f"hint/{n}", s, scale=100.0 if n == "large" else 1.0)) for n, s in shapes]


def attention_transfer():
    shapes = [
        ("same_size", (3, 4, 5, 5), (3, 6, 5, 5), 2),
        ("fourth_power", (2, 4, 4, 4), (2, 3, 4, 4), 4),
        ("batch_of_one", (1, 3, 4, 4), (1, 3, 4, 4), 2),
        ("larger_student", (2, 3, 8, 8), (2, 5, 4, 4), 2),
        ("larger_teacher", (2, 3, 4, 4), (2, 2, 8, 8), 2),
        ("larger_student_uneven", (2, 3, 7, 7), (2, 4, 4, 4), 2),
        ("one_pixel", (3, 4, 1, 1), (3, 2, 1, 1), 2),
        ("not_square", (2, 3, 4, 6), (2, 5, 4, 6), 2),
    ]
    return [(n, {"p": p}, features(f"attention_transfer/{n}", s, t)) for n, s, t, p in shapes]


def sp():
    shapes = [
        ("rows", (5, 7), (5, 4)),
        ("images", (4, 3, 4, 4), (4, 5, 2, 2)),
        ("batch_of_two", (2, 6), (2, 6)),
        ("batch_of_one", (1, 6), (1, 6)),
        ("larger_batch", (9, 4), (9, 6)),
    ]
    return [(n, {}, features(f"sp/{n}", s, t)) for n, s, t in shapes]


def rkd():
    shapes = [
        ("default", (5, 6), (5, 6), 25, 50),
        ("distance_only", (5, 6), (5, 4), 25, 0),
        ("angle_only", (5, 6), (5, 4), 0, 50),
        ("other_weights", (6, 3), (6, 8), 1, 2),
        ("batch_of_two", (2, 5), (2, 5), 25, 50),
        ("batch_of_three", (3, 5), (3, 5), 25, 50),
        ("duplicate_rows", (5, 4), (5, 3), 25, 50),
        ("images", (4, 2, 3, 3), (4, 3, 2, 2), 25, 50),
        ("outlier", (6, 4), (6, 4), 25, 50),
    ]
    found = []
    for name, student, teacher, distance, angle in shapes:
        inputs = features(f"rkd/{name}", student, teacher)
        if name == "outlier":  # normalised distances differ by more than 1: the linear part of the Huber loss
            inputs["student"][1] *= 16.0
        if name == "duplicate_rows":
            inputs["student"][3] = inputs["student"][1]
        found.append((name, {"distance_weight": distance, "angle_weight": angle}, inputs))
    return found


def review_kd():
    shapes = [
        ("one_stage", [(2, 3, 8, 8)]),
        ("three_stages", [(2, 3, 8, 8), (2, 4, 4, 4), (2, 5, 1, 1)]),
        ("uneven", [(2, 2, 5, 5), (2, 3, 3, 3), (2, 4, 2, 2)]),
        ("not_square", [(2, 2, 6, 8)]),
        ("batch_of_one", [(1, 3, 6, 6), (1, 3, 1, 1)]),
    ]
    found = []
    for name, stages in shapes:
        inputs = {}
        for i, shape in enumerate(stages):
            both = features(f"review_kd/{name}/{i}", shape)
            inputs |= {f"student_{i}": both["student"], f"teacher_{i}": both["teacher"]}
        found.append((name, {}, inputs))
    return found
