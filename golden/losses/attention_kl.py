"""KL of attention distributions (MobileBERT, Sun 2020, arXiv 2004.02984; MiniLM, Wang 2020, arXiv 2002.10957)."""

import importlib.util
from pathlib import Path

import torch
import torch.nn.functional as F

_found = importlib.util.spec_from_file_location("attention_mse", Path(__file__).parent / "attention_mse.py")
_attention_mse = importlib.util.module_from_spec(_found)
_found.loader.exec_module(_attention_mse)
pairs, by_query = _attention_mse.pairs, _attention_mse.by_query

PER_SAMPLE = "each query: mean over heads of the KL over its unmasked keys; 0 for a query without one; the loss is the mean over unmasked queries"


def cases():
    return _attention_mse.cases("attention_kl")


def divergence(student, teacher, kept, heads):
    """`[batch, queries]` from scores `[batch, heads, queries, keys]`, keys left out one query at a time."""
    rows = torch.zeros(kept.shape[:2], dtype=student.dtype)
    for b in range(kept.shape[0]):
        for q in range(kept.shape[1]):
            if kept[b, q].any():
                sides = [F.log_softmax(side[b, :, q][:, kept[b, q]], -1) for side in (student, teacher)]
                if heads == "Mean":
                    sides = [torch.logsumexp(side, 0, keepdim=True) - torch.tensor(len(side)).log() for side in sides]
                rows[b, q] = F.kl_div(*sides, reduction="none", log_target=True).sum(-1).mean()
    return rows


def loss(config, inputs):
    kept = pairs(inputs)
    return by_query(divergence(inputs["student"], inputs["teacher"], kept, config["heads"]), kept)


def authors(authors, config, inputs):
    """TextBrewer leaves masked keys in the softmax: they are given -10000, as models write over them."""
    square = inputs["student"].shape[2] == inputs["student"].shape[3]
    if "causal_mask" in inputs or "pair_mask" in inputs or not square or config["heads"] == "Mean":
        return []
    textbrewer = authors.load("TextBrewer", "src/textbrewer/losses.py", "att_ce_loss")["att_ce_loss"]
    mask = inputs.get("mask", torch.ones(inputs["student"].shape[0], inputs["student"].shape[2], dtype=torch.bool))
    student, teacher = (inputs[side].masked_fill(~mask[:, None, None, :], -1e4) for side in ("student", "teacher"))
    p = F.softmax(teacher, -1)
    entropy = torch.special.entr(p).sum(-1).mean(1)[mask].mean()
    return [("TextBrewer", "att_ce_loss less the teacher's entropy", textbrewer(student, teacher, mask) - entropy)]
