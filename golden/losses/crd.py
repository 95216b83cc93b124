"""Contrastive representation distillation (Tian 2020, arXiv 1910.10699)."""

from types import SimpleNamespace

import numpy as np
import torch

from shared import bell, integers

PER_SAMPLE = "both sides of each sample: the positive's and the sum of its negatives' terms"
UNKNOWN = float(np.float32(-1e30))
# Z of a first batch counts as a constant, which a central difference cannot know.
KINKS = ("first_batch", "few_negatives", "cold_first_batch", "warm", "batch_of_one", "more_negatives_than_samples")
KINKS += ("scale_30",)


def cases():
    shapes = [
        # name, batch, student's and teacher's width, width, samples, negatives, temperature, momentum, ln Z, scale
        ("first_batch", 3, 4, 5, 4, 20, 6, 0.5, 0.5, None, 1.0),
        ("few_negatives", 3, 4, 5, 4, 40, 2, 0.5, 0.25, None, 1.0),
        ("later_batch", 4, 5, 3, 4, 20, 7, 0.5, 0.5, (3.25, 2.5), 1.0),
        ("cold", 3, 4, 4, 6, 12, 20, 0.07, 0.5, (8.5, 7.75), 1.0),
        ("cold_first_batch", 3, 4, 4, 6, 12, 20, 0.07, 0.5, None, 1.0),
        ("warm", 3, 4, 4, 3, 9, 5, 4.0, 0.9, None, 1.0),
        ("batch_of_one", 1, 3, 4, 4, 15, 6, 0.5, 0.5, None, 1.0),
        ("more_negatives_than_samples", 2, 3, 4, 3, 5, 11, 0.5, 0.0, None, 1.0),
        ("scale_30", 3, 4, 5, 4, 20, 6, 0.5, 0.5, None, 30.0),
    ]
    found = []
    for name, batch, student, teacher, width, samples, negatives, temperature, momentum, known, scale in shapes:
        key = f"crd/{name}"
        config = {"student_width": student, "teacher_width": teacher, "samples": samples, "width": width}
        config |= {"negatives": negatives, "temperature": temperature, "momentum": momentum}
        inputs = {
            "student": bell(f"{key}/student", (batch, student), scale),
            "teacher": bell(f"{key}/teacher", (batch, teacher), 1.5 * scale),
            "sample_indices": (integers(f"{key}/samples", (1,), samples) + 3 * np.arange(batch)) % samples,
            "negatives": integers(f"{key}/negatives", (batch, negatives), samples),
            "fixed.log_partition": np.array(known or (UNKNOWN, UNKNOWN)),
        }
        for side, inputs_of_side in (("student", student), ("teacher", teacher)):
            inputs[f"parameter.{side}_projection.weight"] = bell(f"{key}/{side}/weight", (inputs_of_side, width), 0.5)
            inputs[f"parameter.{side}_projection.bias"] = bell(f"{key}/{side}/bias", (width,), 0.25)
            inputs[f"fixed.{side}_memory.rows"] = bell(f"{key}/{side}/memory", (samples, width), width**-0.5)
        assert len(set(inputs["sample_indices"])) == batch
        found.append((name, config, inputs))
    return found


def embeddings(inputs):
    for side in ("student", "teacher"):
        weight, bias = (inputs[f"parameter.{side}_projection.{field}"] for field in ("weight", "bias"))
        projected = inputs[side] @ weight + bias
        yield projected / projected.norm(dim=1, keepdim=True)


def similarities(config, inputs):
    """exp(similarity / temperature) with the own row first, of the student's and of the teacher's side."""
    rows = torch.cat([inputs["sample_indices"][:, None], inputs["negatives"]], 1)
    for embedded, other in zip(embeddings(inputs), ("teacher", "student"), strict=True):
        remembered = inputs[f"fixed.{other}_memory.rows"].to(embedded)[rows]
        yield torch.exp((remembered * embedded[:, None]).sum(2) / config["temperature"])


def partitions(config, inputs):
    known = inputs["fixed.log_partition"]
    for index, similar in enumerate(similarities(config, inputs)):
        first = similar.detach().mean() * config["samples"]
        yield first if known[index] < -1e29 else known[index].exp().to(similar)


def loss(config, inputs):
    """Equation 18 with h of equation 19: is a pair of the joint distribution, or one of m of the marginals?"""
    per_sample = 0.0
    odds = inputs["negatives"].shape[1] / config["samples"]
    sides = zip(similarities(config, inputs), partitions(config, inputs), strict=True)
    for similar, partition in sides:
        p = similar / partition
        joint = p / (p + odds + 1e-7)
        marginal = odds / (p + odds + 1e-7)
        per_sample = per_sample - joint[:, 0].log() - marginal[:, 1:].log().sum(1)
    return per_sample.mean(), per_sample


def after(config, inputs):
    """What is remembered after the batch."""
    state = {"fixed.log_partition": torch.stack([z.log() for z in partitions(config, inputs)])}
    for side, embedded in zip(("student", "teacher"), embeddings(inputs), strict=True):
        memory = inputs[f"fixed.{side}_memory.rows"].clone()
        for sample, embedding in zip(inputs["sample_indices"], embedded.detach(), strict=True):
            moved = config["momentum"] * memory[sample] + (1 - config["momentum"]) * embedding
            memory[sample] = moved / moved.norm()
        state[f"fixed.{side}_memory.rows"] = memory
    return state


def authors(authors, config, inputs):
    alias = SimpleNamespace(cuda=lambda: None)
    path = "crd/memory.py"
    memory = authors.load("RepDistiller", path, "ContrastMemory", AliasMethod=lambda _: alias, print=lambda *_: None)
    names = ("CRDLoss", "ContrastLoss", "Embed", "Normalize")
    code = authors.load("RepDistiller", "crd/criterion.py", *names, **memory, eps=1e-7)
    options = SimpleNamespace(
        s_dim=config["student_width"],
        t_dim=config["teacher_width"],
        feat_dim=config["width"],
        nce_k=config["negatives"],
        nce_t=config["temperature"],
        nce_m=config["momentum"],
        n_data=config["samples"],
    )
    module = code["CRDLoss"](options).double()
    known = inputs["fixed.log_partition"].detach()
    z = torch.where(known < -1e29, -1.0, known.exp()).tolist()
    numbers = [config["negatives"], config["temperature"], *z, config["momentum"]]
    module.contrast.params = torch.tensor(numbers, dtype=torch.float64)
    module.contrast.memory_v1 = inputs["fixed.student_memory.rows"].clone()
    module.contrast.memory_v2 = inputs["fixed.teacher_memory.rows"].clone()
    named = {}
    for side, embed in (("student", "embed_s"), ("teacher", "embed_t")):
        named[f"{embed}.linear.weight"] = inputs[f"parameter.{side}_projection.weight"].T
        named[f"{embed}.linear.bias"] = inputs[f"parameter.{side}_projection.bias"]
    samples = inputs["sample_indices"]
    drawn = torch.cat([samples[:, None], inputs["negatives"]], 1)
    arguments = (inputs["student"], inputs["teacher"], samples, drawn)
    value = torch.func.functional_call(module, named, arguments).squeeze()
    # Their memory moves as ours.
    state = after(config, inputs)
    for side, theirs in (("student", module.contrast.memory_v1), ("teacher", module.contrast.memory_v2)):
        assert torch.allclose(state[f"fixed.{side}_memory.rows"], theirs, rtol=0, atol=1e-12), side
    assert torch.allclose(state["fixed.log_partition"], module.contrast.params[2:4].log(), rtol=0, atol=1e-12)
    return [("RepDistiller", "CRDLoss, its memory and Z after the batch", value)]
