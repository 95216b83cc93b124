"""Dual-space knowledge distillation (Zhang 2024, arXiv 2406.17328)."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

from authors import in_float64
from shared import bell, integers, kl, mask, rows


def parameters(name, layers):
    """Weights `[inputs, outputs]` and biases of Burn's linear layers."""
    found = {}
    for layer, shape in layers.items():
        found[f"parameter.{layer}.weight"] = bell(f"{name}/{layer}.weight", shape, 0.5)
        found[f"parameter.{layer}.bias"] = bell(f"{name}/{layer}.bias", shape[1:], 0.5)
    return found


def cases():
    shapes = [
        # name, batch and tokens, widths, classes, temperature, beta, masked, scale
        ("tokens", (2, 3), (3, 4), (5, 5), 1, 0, False, 1.0),
        ("padded", (3, 3), (2, 4), (5, 5), 1, 0, True, 1.0),
        ("temperature_2", (2, 2), (4, 3), (6, 6), 2, 0, True, 1.0),
        ("temperature_0.5", (2, 2), (3, 2), (4, 4), 0.5, 0, False, 0.5),
        ("reverse_kl", (2, 3), (3, 3), (5, 5), 1, 1, False, 1.0),
        ("jsd", (2, 2), (3, 4), (5, 5), 2, 0.5, False, 1.0),
        ("padded_vocabulary", (2, 2), (3, 4), (5, 7), 1, 0, False, 1.0),
        ("batch_of_one", (1, 2), (2, 3), (4, 4), 1, 0, False, 1.0),
        ("scale_10", (2, 2), (3, 3), (4, 4), 1, 0, True, 10.0),
    ]
    found = []
    for case, lead, (student, teacher), classes, t, beta, masked, scale in shapes:
        name = f"dskd/{case}"
        inputs = {
            "student_hidden": bell(f"{name}/student_hidden", (*lead, student), scale),
            "student_logits": bell(f"{name}/student_logits", (*lead, classes[0]), scale),
            "teacher_hidden": bell(f"{name}/teacher_hidden", (*lead, teacher), scale),
            "teacher_logits": bell(f"{name}/teacher_logits", (*lead, classes[1]), 1.25 * scale),
            "fixed_head": bell(f"{name}/head", (student, classes[0]), 0.7),
            "fixed_teacher_head": bell(f"{name}/teacher_head", (teacher, classes[1]), 0.7),
            "targets": integers(f"{name}/targets", lead, classes[0]),
        }
        inputs.update(parameters(name, {"teacher_to_student": (teacher, student), "student_to_teacher": (student, teacher)}))
        if masked:
            inputs["mask"] = mask(name, lead)
        found.append((case, {"temperature": t, "beta": beta}, inputs))
    return found


def project(inputs, layer, rows):
    return rows @ inputs[f"parameter.{layer}.weight"] + inputs[f"parameter.{layer}.bias"]


def divergence(student, teacher, beta):
    """From log-probabilities: forward KL, reverse KL or the mixture's divergence."""
    if beta in (0, 1):
        return kl(teacher, student) if beta == 0 else kl(student, teacher)
    m = (beta * teacher.exp() + (1 - beta) * student.exp()).log()
    return beta * kl(teacher, m) + (1 - beta) * kl(student, m)


@rows
def loss(config, inputs):
    t, beta = config["temperature"], config["beta"]
    in_student_space = project(inputs, "teacher_to_student", inputs["teacher_hidden"]) @ inputs["fixed_head"]
    in_teacher_space = project(inputs, "student_to_teacher", inputs["student_hidden"]) @ inputs["fixed_teacher_head"]
    task = F.cross_entropy(in_student_space.flatten(0, 1), inputs["targets"].flatten(), reduction="none")
    # The projected teacher is a constant for the divergence. That stops a gradient, not a value.
    constant = F.log_softmax(in_student_space.detach() / t, -1)
    own = divergence(F.log_softmax(inputs["student_logits"] / t, -1), constant, beta)
    theirs = kl(F.log_softmax(inputs["teacher_logits"] / t, -1), F.log_softmax(in_teacher_space / t, -1))
    return task.reshape(own.shape) + t**2 * (own + theirs)


# A stopped gradient has no central difference.
KINKS = [name for name, _, _ in cases()]


class Head:
    """Answers as an `nn.Linear` without bias whose weight is a constant."""

    def __init__(self, weight):
        self.weight = weight.T

    def __call__(self, rows):
        return rows @ self.weight.T


def criterion(authors, path, name, config):
    """An instance of a criterion of the authors' at a temperature and divergence."""
    base = authors.load("DSKD", "code/criterions/cross_entropy_loss.py", "CrossEntropyLoss", dist=None)
    various = authors.load("DSKD", "code/criterions/various_divergence.py", "VariousDivergence", **base)
    arguments = SimpleNamespace(
        label_smoothing=0.0,
        kd_rate=0.5,
        kd_temperature=config["temperature"],
        teacher_temperature=1.0,
        kd_objective={0: "forward_kl", 1: "reverse_kl", 0.5: "js_divergence"}[config["beta"]],
        only_save_projector=False,
    )
    return authors.load("DSKD", path, name, **various)[name](arguments)


def distiller(inputs, layers, **models):
    projectors = {key: lambda rows, layer=layer: project(inputs, layer, rows) for key, layer in layers.items()}
    return SimpleNamespace(projectors=projectors, teacher_model_type="any", **models)


def authors(authors, config, inputs):
    """Sums over tokens: the parts are read from the log, the divergences times temperature squared."""
    if config["beta"] == 0.5:
        return []  # adds 1e-9 to every probability
    function = criterion(authors, "code/criterions/dual_space_kd.py", "DualSpaceKD", config)
    keep = inputs.get("mask", torch.ones(inputs["targets"].shape, dtype=torch.bool))
    labels = torch.where(keep, inputs["targets"], -100)
    outputs = [
        SimpleNamespace(hidden_states=[inputs[f"{side}_hidden"]], logits=inputs[f"{side}_logits"])
        for side in ("student", "teacher")
    ]
    models = {"student_model": SimpleNamespace(lm_head=Head(inputs["fixed_head"]))}
    models["teacher_model"] = SimpleNamespace(lm_head=Head(inputs["fixed_teacher_head"]))
    layers = {"t2s": "teacher_to_student", "s2t": "student_to_teacher"}
    data, log = {"label": labels, "teacher_any_label": labels}, {}
    with in_float64():
        function.compute_dual_space_kd_loss(*outputs, data, distiller(inputs, layers, **models), log)
    squared = config["temperature"] ** 2
    value = (log["t2s_ce_loss"] + squared * (log["t2s_kd_loss"] + log["s2t_kd_loss"])) / keep.sum()
    return [("DSKD", "DualSpaceKD, divergences * temperature^2, over the number of tokens", value)]
