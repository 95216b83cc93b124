"""Mean squared difference of attention scores (TinyBERT, Jiao 2020, arXiv 1909.10351)."""

import torch

from shared import features, mask

PER_SAMPLE = "each query: mean over heads and its unmasked keys; 0 for a query without one; the loss is the mean over unmasked queries"


def cases(name="attention_mse"):
    shapes = [
        # name, student, teacher, mask, heads, scale
        ("scores", (2, 3, 4, 4), None, None, "Match", 1.0),
        ("padded", (3, 2, 5, 5), None, "lengths", "Match", 2.0),
        ("padded_equally", (2, 2, 4, 4), None, "same", "Match", 1.0),
        ("cross_attention", (2, 2, 3, 5), None, None, "Match", 1.0),
        ("any_pairs", (2, 2, 4, 3), None, "pairs", "Match", 1.0),
        ("causal", (2, 2, 4, 4), None, "causal", "Match", 1.0),
        ("mean_of_heads", (2, 2, 3, 3), (2, 3, 3, 3), None, "Mean", 1.0),
        ("mean_of_heads_padded", (3, 4, 4, 4), (3, 2, 4, 4), "lengths", "Mean", 1.0),
        ("one_head", (2, 1, 3, 3), None, None, "Match", 1.0),
        ("batch_of_one", (1, 2, 3, 3), None, "lengths", "Match", 1.0),
        ("scale_30", (2, 2, 4, 4), None, "lengths", "Match", 30.0),
    ]
    found = []
    for case, student, teacher, masked, heads, scale in shapes:
        inputs = features(f"{name}/{case}", student, teacher, scale)
        batch, _, queries, keys = student
        if masked in ("lengths", "same", "causal"):
            lengths = torch.tensor([queries - 1 if masked == "same" else queries - i % 3 for i in range(batch)])
            inputs["mask"] = (torch.arange(queries) < lengths[:, None]).numpy()
        if masked == "causal":
            inputs["causal_mask"] = torch.tril(torch.ones(batch, queries, queries, dtype=torch.bool)).numpy()
        if masked == "pairs":
            pairs = mask(f"{name}/{case}", (batch, queries, keys))
            pairs[0, 1] = False  # a query without a key
            inputs["pair_mask"] = pairs
        found.append((case, {"heads": heads}, inputs))
    return found


def pairs(inputs):
    """`[batch, queries, keys]`, true where a pair counts."""
    batch, _, queries, keys = inputs["student"].shape
    found = torch.ones(batch, queries, keys, dtype=torch.bool)
    if "mask" in inputs:
        found = inputs["mask"][:, :, None] & inputs["mask"][:, None, :]
    for name in ("causal_mask", "pair_mask"):
        if name in inputs:
            found = found & inputs[name]
    return found


def by_query(values, counts):
    """Mean over the queries with a key, and all queries."""
    some = counts.any(-1)
    return values[some].mean(), torch.where(some, values, 0.0).flatten()


def loss(config, inputs):
    kept = pairs(inputs)
    student, teacher = inputs["student"], inputs["teacher"]
    if config["heads"] == "Mean":
        student, teacher = student.mean(1, keepdim=True), teacher.mean(1, keepdim=True)
    squares = (student - teacher).pow(2).mean(1)
    rows = [[squares[b, q][kept[b, q]].mean() if kept[b, q].any() else squares.new_zeros(()) for q in range(kept.shape[1])] for b in range(len(kept))]
    return by_query(torch.stack([torch.stack(row) for row in rows]), kept)


def authors(authors, config, inputs):
    """Without `mask` TextBrewer sets scores up to -0.001 to 0, so it is given one of ones."""
    if "causal_mask" in inputs or "pair_mask" in inputs or inputs["student"].shape[2] != inputs["student"].shape[3]:
        return []
    names = ["att_mse_loss", "att_mse_sum_loss"]
    textbrewer = authors.load("TextBrewer", "src/textbrewer/losses.py", *names)
    student, teacher = inputs["student"], inputs["teacher"]
    mask = inputs.get("mask", torch.ones(student.shape[0], student.shape[2], dtype=torch.bool))
    if config["heads"] == "Match":
        return [("TextBrewer", names[0], textbrewer[names[0]](student, teacher, mask))]
    # The sum over heads is their number times the mean; theirs differ here, so each is divided by its own.
    means = student / student.shape[1], teacher / teacher.shape[1]
    return [("TextBrewer", f"{names[1]} of scores over the number of heads", textbrewer[names[1]](*means, mask))]
