"""One minus the cosine of hidden states (DistilBERT, Sanh 2019, arXiv 1910.01108)."""

import importlib.util
from pathlib import Path

import torch
import torch.nn.functional as F

from shared import rows

_found = importlib.util.spec_from_file_location("hidden_mse", Path(__file__).parent / "hidden_mse.py")
_hidden_mse = importlib.util.module_from_spec(_found)
_found.loader.exec_module(_hidden_mse)


def cases():
    return _hidden_mse.cases("hidden_cosine")


@rows
def loss(config, inputs):
    student, teacher = inputs["student"], inputs["teacher"]
    length = [torch.linalg.vector_norm(side, dim=-1) for side in (student, teacher)]
    return 1 - torch.einsum("...w,...w->...", student, teacher) / (length[0] * length[1])


def authors(authors, config, inputs):
    path = "src/textbrewer/losses.py"
    textbrewer = authors.load("TextBrewer", path, "cos_loss", mask_dtype=torch.bool)["cos_loss"]
    student, teacher = inputs["student"], inputs["teacher"]
    if "mask" in inputs:
        target = torch.ones(int(inputs["mask"].sum()), dtype=student.dtype)
        selected = [side[inputs["mask"]] for side in (student, teacher)]
    else:
        selected = [side.flatten(0, 1) for side in (student, teacher)]
        target = torch.ones(len(selected[0]), dtype=student.dtype)
    return [
        ("TextBrewer", "cos_loss", textbrewer(student, teacher, inputs.get("mask"))),
        ("PyTorch", "cosine_embedding_loss, as DistilBERT's training", F.cosine_embedding_loss(*selected, target)),
        ("DistillKit", "hs_cosine", _hidden_mse.distillkit(authors, "cosine", inputs)),
    ]
