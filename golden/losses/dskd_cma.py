"""Dual-space knowledge distillation with cross-model attention (Zhang 2024, arXiv 2406.17328)."""

import importlib.util
import math
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F

from authors import in_float64
from shared import bell, integers, kl

_found = importlib.util.spec_from_file_location("dskd", Path(__file__).parent / "dskd.py")
_dskd = importlib.util.module_from_spec(_found)
_found.loader.exec_module(_dskd)

PER_SAMPLE = "the batch times each sample's share of the mean over student tokens plus the mean over teacher tokens"


def cases():
    shapes = [
        # name, batch, tokens, widths, classes, temperature, beta, padded, scale
        ("tokens", 2, (3, 4), (2, 3), (4, 5), 1, 0, False, 1.0),
        ("fewer_teacher_tokens", 2, (4, 2), (3, 2), (4, 6), 1, 0, False, 1.0),
        ("padded", 3, (3, 4), (2, 3), (3, 4), 1, 0, True, 1.0),
        ("temperature_2", 2, (3, 2), (2, 2), (3, 5), 2, 0, False, 1.0),
        ("reverse_kl_padded", 2, (3, 3), (2, 3), (3, 4), 2, 1, True, 1.0),
        ("jsd", 2, (2, 3), (3, 2), (3, 4), 1, 0.5, False, 1.0),
        ("batch_of_one", 1, (3, 2), (2, 3), (3, 3), 1, 0, False, 1.0),
        ("scale_5", 2, (2, 3), (2, 2), (3, 4), 1, 0, False, 5.0),
    ]
    found = []
    for case, batch, tokens, widths, classes, t, beta, padded, scale in shapes:
        name, inputs = f"dskd_cma/{case}", {}
        for side, (role, own) in enumerate([("student", "own"), ("teacher", "foreign")]):
            lead = (batch, tokens[side])
            inputs[f"{role}_hidden"] = bell(f"{name}/{role}_hidden", (*lead, widths[side]), scale)
            inputs[f"{role}_logits"] = bell(f"{name}/{role}_logits", (*lead, classes[side]), scale)
            inputs[f"{own}_inputs"] = bell(f"{name}/{own}_inputs", (*lead, widths[side]), 0.5)
            inputs[f"{own}_embedded"] = bell(f"{name}/{own}_embedded", (*lead, widths[side]), 0.5)
            inputs[f"fixed_{own}_head"] = bell(f"{name}/{own}_head", (widths[side], classes[side]), 0.7)
            if padded:
                lengths = torch.tensor([tokens[side] - (i + side) % 3 for i in range(batch)])
                inputs[f"{own}_mask"] = (torch.arange(tokens[side]) < lengths[:, None]).numpy()
        inputs["targets"] = integers(f"{name}/targets", (batch, tokens[0]), classes[0])
        layers = {
            "teacher_to_student": (widths[1], widths[0]),
            "student_to_teacher": widths,
            "query": (2 * widths[0], 2 * widths[1]),
        }
        inputs.update(_dskd.parameters(name, layers))
        found.append((case, {"temperature": t, "beta": beta}, inputs))
    return found


# A stopped gradient has no central difference.
KINKS = [name for name, _, _ in cases()]


def flags(inputs, own):
    shape = inputs[f"{own}_inputs"].shape[:2]
    return inputs.get(f"{own}_mask", torch.ones(shape, dtype=torch.bool))


def loss(config, inputs):
    """One sample at a time, padding cut off first."""
    t, batch = config["temperature"], len(inputs["targets"])
    keep, other = flags(inputs, "own"), flags(inputs, "foreign")
    names = ("foreign_inputs", "foreign_embedded")
    keys = torch.cat([inputs[name] for name in names], -1)
    keys = keys / keys[other].std()
    said = inputs["teacher_hidden"] / inputs["teacher_hidden"][other].std()
    said = said + inputs["foreign_embedded"] / inputs["foreign_embedded"][other].std()
    shares = []
    for b in range(batch):
        own, foreign = keep[b], other[b]
        queries = torch.cat([inputs["own_inputs"][b, own], inputs["own_embedded"][b, own]], -1)
        queries = _dskd.project(inputs, "query", queries)
        scores = queries @ keys[b, foreign].T / math.sqrt(queries.shape[-1])
        values = _dskd.project(inputs, "teacher_to_student", said[b, foreign])
        in_student_space = scores.softmax(1) @ values @ inputs["fixed_own_head"]
        target = inputs["targets"][b, own]
        task = F.cross_entropy(in_student_space, target, reduction="sum")
        constant = F.log_softmax(in_student_space.detach() / t, -1)
        student = F.log_softmax(inputs["student_logits"][b, own] / t, -1)
        right = in_student_space.argmax(-1) == target
        divergence = _dskd.divergence(student, constant, config["beta"])[right].sum()
        values = _dskd.project(inputs, "student_to_teacher", inputs["student_hidden"][b, own])
        in_teacher_space = scores.softmax(0).T @ values @ inputs["fixed_foreign_head"]
        teacher = F.log_softmax(inputs["teacher_logits"][b, foreign] / t, -1)
        theirs = kl(teacher, F.log_softmax(in_teacher_space / t, -1)).sum()
        shares.append(batch * ((task + t**2 * divergence) / keep.sum() + t**2 * theirs / other.sum()))
    return torch.stack(shares).mean(), torch.stack(shares)


def authors(authors, config, inputs):
    """Without padding: over it they take the deviation of embeddings of token 0. Parts are read from the log."""
    if "own_mask" in inputs or config["beta"] == 0.5:
        return []
    path = "code/criterions/dual_space_kd_with_cross_model_attention.py"
    function = _dskd.criterion(authors, path, "DualSpaceKDWithCMA", config)
    outputs, models = [], {}
    for role, own in (("student", "own"), ("teacher", "foreign")):
        outputs.append(SimpleNamespace(hidden_states=[inputs[f"{role}_hidden"]], logits=inputs[f"{role}_logits"]))
        # Asked for the embeddings of the inputs first, then of the targets.
        embeddings = iter([inputs[f"{own}_inputs"], inputs[f"{own}_embedded"]])
        model = SimpleNamespace(embed_tokens=lambda ids, embeddings=embeddings: next(embeddings))
        models[f"{role}_model"] = SimpleNamespace(model=model, lm_head=_dskd.Head(inputs[f"fixed_{own}_head"]))
    layers = {"t2s": "teacher_to_student", "s2t": "student_to_teacher", "query": "query"}
    teacher_labels = torch.zeros(inputs["foreign_inputs"].shape[:2], dtype=torch.long)
    output = {"label": inputs["targets"], "teacher_any_label": teacher_labels}
    data, log = {"input_ids": inputs["targets"], "teacher_any_input_ids": teacher_labels}, {}
    with in_float64():
        arguments = (*outputs, data, output, _dskd.distiller(inputs, layers, **models), log)
        function.compute_dual_space_kd_loss_with_cma(*arguments)
    squared, (own, foreign) = config["temperature"] ** 2, (inputs["targets"].numel(), teacher_labels.numel())
    value = (log["t2s_ce_loss"] + squared * log["t2s_kd_loss"]) / own + squared * log["s2t_kd_loss"] / foreign
    return [("DSKD", "DualSpaceKDWithCMA, divergences * temperature^2, each space over its number of tokens", value)]
