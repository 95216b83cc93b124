"""Self-attention relations (MiniLM, arXiv 2002.10957; MiniLMv2, arXiv 2012.15828). Their training code is not public."""

import importlib.util
import math
from pathlib import Path

import torch

from shared import features

_found = importlib.util.spec_from_file_location("attention_kl", Path(__file__).parent / "attention_kl.py")
_attention_kl = importlib.util.module_from_spec(_found)
_found.loader.exec_module(_attention_kl)

PER_SAMPLE = "each token: mean over relation heads of the KL of its relations to unmasked tokens; the loss is the mean over unmasked tokens"


def cases():
    shapes = [
        # name, student, teacher, relation heads, masked, scale
        ("one_head", (2, 4, 3), (2, 4, 3), 1, False, 1.0),
        ("heads", (2, 3, 6), (2, 3, 6), 3, False, 1.0),
        ("other_width", (2, 4, 4), (2, 4, 6), 2, False, 1.0),
        ("padded", (3, 5, 4), (3, 5, 8), 2, True, 1.0),
        ("causal", (2, 4, 4), (2, 4, 2), 2, "causal", 1.0),
        ("heads_of_width_one", (2, 3, 4), (2, 3, 8), 4, False, 1.5),
        ("batch_of_one", (1, 3, 2), (1, 3, 4), 2, True, 1.0),
        ("scale_5", (2, 3, 4), (2, 3, 4), 2, True, 5.0),
    ]
    found = []
    for case, student, teacher, heads, masked, scale in shapes:
        inputs = features(f"minilm/{case}", student, teacher, scale)
        batch, tokens, _ = student
        if masked:
            lengths = torch.tensor([tokens - i % 3 for i in range(batch)])
            inputs["mask"] = (torch.arange(tokens) < lengths[:, None]).numpy()
        if masked == "causal":
            inputs["causal_mask"] = torch.tril(torch.ones(batch, tokens, tokens, dtype=torch.bool)).numpy()
        found.append((case, {"relation_heads": heads}, inputs))
    return found


def loss(config, inputs):
    scores = {}
    for side in ("student", "teacher"):
        heads = torch.stack(inputs[side].chunk(config["relation_heads"], -1), 1)
        scores[side] = torch.einsum("bhqd,bhkd->bhqk", heads, heads) / math.sqrt(heads.shape[-1])
    kept = _attention_kl.pairs({**inputs, **scores})
    return _attention_kl.by_query(_attention_kl.divergence(scores["student"], scores["teacher"], kept, "Match"), kept)
