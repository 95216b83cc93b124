"""Writes `conventions.json`: the losses of other libraries as their own functions compute them. See README.md.

python golden/conventions.py --reference-dir DIR

Each case names a constructor of this library, its arguments and what else is set (`config`), and holds the value and the
student's gradient that the other library's function gives for the inputs. `brought` says what was done to them where
the function is only a part of what the constructor stands for, or has a mistake that is not copied. Without a checkout
there is nothing to write: the committed numbers stay as they are.
"""

import argparse
import functools
import json
import math
from abc import ABCMeta
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Callable, List, Optional, Tuple, Union

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from authors import COMMITS, Authors, Missing, in_float64
from losses import array, tensors
from shared import mask, pair

TOKENS, SAMPLES, VOCABULARY, K = (3, 4, 7), (5, 7), 7, 3


def dense(name, shape=TOKENS, masked=True):
    inputs = pair(f"conventions/{name}", shape, 2.0)
    if masked:
        inputs["mask"] = mask(f"conventions/{name}", shape[:-1])
    return inputs


def top_k(name, padded=True):
    """Student logits, and the K most probable classes of the teacher at temperature 1; one row lists fewer."""
    inputs = dense(name)
    teacher = inputs.pop("teacher_logits")
    log_probs = teacher - np.log(np.exp(teacher).sum(-1, keepdims=True))
    inputs["indices"] = np.argsort(-log_probs, -1, kind="stable")[..., :K]
    inputs["log_probs"] = np.floor(np.take_along_axis(log_probs, inputs["indices"], -1) * 256) / 256
    if padded:
        inputs["log_probs"][1, 2, -1] = -np.inf
    return inputs


def whole(name):
    """A top k that holds all of the teacher's probability."""
    inputs = top_k(name, padded=False)
    log_probs = inputs["log_probs"]
    inputs["log_probs"] = (log_probs - np.log(np.exp(log_probs).sum(-1, keepdims=True))).astype(np.float32)
    return inputs


def labels(inputs):
    return torch.where(inputs["mask"], 1, -100)


def mean(per_token, inputs):
    """What a caller does with a value per token: the mean over those that count."""
    return (per_token * inputs["mask"]).sum() / inputs["mask"].sum()


# One function per library's function: (authors, config, inputs) -> value. `config` holds the constructor's arguments and
# the temperature.


def torchdistill(authors, config, inputs, targets=None):
    loss = authors.load("torchdistill", "torchdistill/losses/mid_level.py", "KDLoss")["KDLoss"]
    loss = loss("a", "b", "a", "b", temperature=config["temperature"], alpha=0.3 if targets is not None else 0.0, beta=1)
    student, teacher = inputs["student_logits"], inputs["teacher_logits"]
    both = loss({"a": {"b": student}}, {"a": {"b": teacher}}, targets)
    return both if targets is None else both - 0.3 * F.cross_entropy(student, targets)


def torchdistill_with_targets(authors, config, inputs):
    return torchdistill(authors, config, inputs, torch.tensor([2, 0, 6, 4, 1]))


def trl(beta):
    def value(authors, config, inputs):
        path = "trl/experimental/gkd/gkd_trainer.py"
        loss = authors.load("trl", path, "generalized_jsd_loss")["generalized_jsd_loss"]
        given = {"labels": labels(inputs)} if "mask" in inputs else {}
        beta_ = config.get("beta", beta)
        student, teacher = inputs["student_logits"], inputs["teacher_logits"]
        return loss(student, teacher, beta=beta_, temperature=config["temperature"], **given)

    return value


def torchtune(name):
    def value(authors, config, inputs):
        loss = authors.load("torchtune", "torchtune/modules/loss/kd_losses.py", name)[name]
        rows = [inputs[n].flatten(0, 1) for n in ("student_logits", "teacher_logits")]
        return loss()(*rows, labels(inputs))

    return value


def liger(beta):
    def value(authors, config, inputs):
        folder = "src/liger_kernel/chunked_loss"
        given = {"Tuple": Tuple, "Union": Union, "abstractmethod": lambda f: f, "partial": functools.partial}
        name = "LigerFusedLinearDistillationBase"
        base = authors.load("Liger-Kernel", f"{folder}/fused_linear_distillation.py", name, **given)[name]
        function = "LigerFusedLinearJSDFunction"
        function = authors.load("Liger-Kernel", f"{folder}/jsd_loss.py", function, **given, **{name: base})[function]
        # Hidden states that are the logits, and an output projection that changes nothing.
        student, teacher = (inputs[n].flatten(0, 1) for n in ("student_logits", "teacher_logits"))
        identity, target = torch.eye(VOCABULARY, dtype=student.dtype), labels(inputs).flatten()
        return base._compute_loss(
            student,
            identity,
            teacher,
            identity,
            target,
            distillation_loss_fn=function.distillation_loss_fn,
            full_target=target,
            weight_hard_loss=0.0,
            weight_soft_loss=1.0,
            compute_ce_loss=False,
            temperature=config["temperature"],
            beta=config.get("beta", beta),
        )[0]

    return value


def distillkit(name, path):
    def value(authors, config, inputs):
        missing = authors.load(
            "DistillKit", "distillkit/missing_probability.py", "MissingProbabilityHandling", Enum=Enum
        )
        names = ["get_target_logprobs", "get_logprobs", "accumulate_over_chunks"]
        scope = {**missing, "TeacherSignal": object, "HiddenStateMapping": object, "Callable": Callable}
        scope |= {"CausalLMOutput": object, "override": lambda f: f, "LossFunctionBase": object}
        scope |= authors.load("DistillKit", "distillkit/lossfuncs/common.py", *names, **scope)
        scope["DenseSignal"] = type("DenseSignal", (SimpleNamespace,), {})
        kind = name.removesuffix("Loss").lower().replace("kld", "kl")
        inner = {"kl": ["sparse_kl_div_inner", "sparse_kl_div", "dense_kl_div"]}
        inner |= {"jsd": ["sparse_jsd_inner", "sparse_js_div", "dense_js_div"]}
        inner |= {"tvd": ["sparse_tvd_inner", "sparse_tvd", "dense_tvd"]}
        scope = authors.load("DistillKit", f"distillkit/lossfuncs/{path}.py", *inner[kind], name, **scope) | scope
        if "teacher_logits" in inputs:
            signal = scope["DenseSignal"](logits=inputs["teacher_logits"])
        else:
            signal = SimpleNamespace(
                sparse_ids=inputs["indices"],
                sparse_values=inputs["log_probs"],
                log_values=True,
                generation_temperature=1.0,
            )
        handling = {"bucket": "symmetric_uniform"}.get(config.get("tail"), "zero")
        handling = missing["MissingProbabilityHandling"](handling)
        loss = scope[name](config["temperature"], missing_probability_handling=handling)
        output = SimpleNamespace(logits=inputs["student_logits"])
        return loss(output, signal, mask=inputs["mask"].to(output.logits.dtype))

    return value


def axolotl_targets(config, inputs):
    """The top k as its data pipeline stores it: tempered and renormalised (`ChatTemplateStrategyWithKD`)."""
    tempered = inputs["log_probs"] / config["temperature"]
    tempered = tempered - tempered.logsumexp(-1, keepdim=True)
    valid = inputs["mask"][..., None] & tempered.isfinite()
    return tempered, valid


def axolotl_topk(authors, config, inputs):
    path = "src/axolotl/integrations/kd/topk_logprob/forward_kl.py"
    loss = authors.load("axolotl", path, "loss")["loss"]
    log_probs, valid = axolotl_targets(config, inputs)
    if config["tail"] == "drop":
        log_probs = inputs["log_probs"]
    return loss(inputs["student_logits"], inputs["indices"], log_probs, valid, kd_temperature=config["temperature"])


def axolotl(beta):
    def value(authors, config, inputs):
        folder = "src/axolotl/integrations/kd"
        given = {"Tuple": Tuple, "Union": Union, "List": List, "abstractmethod": lambda f: f, "partial": functools.partial}
        given["FloatTensor"] = torch.Tensor
        name = "LigerFusedLinearDistillationBase"
        path = "src/liger_kernel/chunked_loss/fused_linear_distillation.py"
        given |= authors.load("Liger-Kernel", path, name, **given)
        given |= authors.load("axolotl", f"{folder}/utils.py", "normalize_logprobs", **given)
        function = "LigerFusedLinearKLTopKLogprobFunction"
        function = authors.load("axolotl", f"{folder}/kernels/liger.py", function, **given)[function]
        log_probs, valid = axolotl_targets(config, inputs)
        student = inputs["student_logits"]
        normalise = config["tail"] == "renormalise"
        arguments = (student, torch.eye(VOCABULARY, dtype=student.dtype), inputs["indices"], log_probs, valid)
        # true_labels, bias, weights of hard and soft loss, ignore_index, temperature, beta, compiled, chunk, ce, normalise
        rest = (labels(inputs), None, 0.0, 1.0, -100, config["temperature"], config.get("beta", beta), False, 4, False)
        total = function.apply(*arguments, *rest, normalise)
        # The trainer's division; and the temperature squared that its gradient lacks, see `brought`.
        value = total / inputs["mask"].sum()
        squared = config["temperature"] ** 2
        return value.detach() + squared * (value - value.detach())

    return value


def textbrewer(authors, config, inputs):
    loss = authors.load("TextBrewer", "src/textbrewer/losses.py", "kd_ce_loss")["kd_ce_loss"]
    keep = inputs["mask"]
    return loss(inputs["student_logits"][keep], inputs["teacher_logits"][keep], config["temperature"])


def model_optimizer(authors, config, inputs):
    name = "LogitsDistillationLoss"
    loss = authors.load("Model-Optimizer", "modelopt/torch/distill/losses.py", name, Loss=nn.modules.loss._Loss)[name]
    return loss(temperature=config["temperature"])(inputs["student_logits"], inputs["teacher_logits"])


def megatron(reverse=False, k=None):
    def value(authors, config, inputs):
        given = {"_Loss": nn.modules.loss._Loss, "ABCMeta": ABCMeta, "Tensor": torch.Tensor}
        names = ["BaseLoss", "LogitsKLLoss", "TopKLogitsKLLoss"]
        path = "modelopt/torch/distill/plugins/megatron.py"
        loaded = {}
        for name in names:
            loaded |= authors.load("Model-Optimizer", path, name, **given, **loaded)
        device = SimpleNamespace(tensor_model_parallel_size=1)
        options = {"temperature": config["temperature"], "reverse": reverse}
        loss = loaded[names[1]](device, **options) if k is None else loaded[names[2]](device, **options, top_k=k)
        if k is None:
            teacher = inputs["teacher_logits"]
        else:
            teacher = torch.full_like(inputs["student_logits"].detach(), -100.0)
            teacher = teacher.scatter(-1, inputs["indices"], inputs["log_probs"])
        by_sequence = (x.transpose(0, 1) for x in (inputs["student_logits"], teacher))
        return mean(loss(*by_sequence)[0], inputs)

    return value


def easydistill(kind):
    def value(authors, config, inputs):
        name = "_compute_white_box_distillation_loss"
        loss = authors.load("easydistill", "easydistill/kd/train.py", name, Optional=Optional)[name]
        nothing = torch.zeros_like(inputs["student_logits"].detach())
        probs = nothing.scatter_add(-1, inputs["indices"], inputs["log_probs"].exp())
        trainer = SimpleNamespace(max_seq_length=TOKENS[1], distillation_type=kind)
        twice = loss(trainer, inputs["student_logits"], probs, labels(inputs))
        return twice * inputs["mask"].sum()

    return value


def distillm(name):
    def value(authors, config, inputs):
        loss = authors.load("distillm", "distillm/losses.py", name)[name]
        given = {"lam": config["lambda"]} if "lambda" in config else {}
        return loss(inputs["student_logits"], inputs["teacher_logits"], {"label": labels(inputs)}, **given)

    return value


def liger_tvd(authors, config, inputs):
    """Its kernel needs a GPU; its own tests hold it against this."""
    loss = authors.load("Liger-Kernel", "test/transformers/test_tvd.py", "TorchTVDLoss")["TorchTVDLoss"]
    probs = (inputs[n].softmax(-1).flatten(0, 1) for n in ("student_logits", "teacher_logits"))
    return loss()(*probs, labels(inputs).flatten())


def mdistiller(authors, config, inputs):
    loss = authors.load("mdistiller", "mdistiller/distillers/KD.py", "kd_loss")["kd_loss"]
    return loss(inputs["student_logits"], inputs["teacher_logits"], config["temperature"])


def repdistiller(authors, config, inputs):
    loss = authors.load("RepDistiller", "distiller_zoo/KD.py", "DistillKL")["DistillKL"]
    return loss(config["temperature"])(inputs["student_logits"], inputs["teacher_logits"])


KERNEL = "axolotl src/axolotl/integrations/kd/kernels/liger.py LigerFusedLinearKLTopKLogprobFunction"
SQUARED = "divided by the labelled tokens, as its trainer does; the gradient times temperature squared, which it lacks"
TWICE = "times the labelled tokens, by which it divides twice"


def cases():
    """(constructor, config, inputs, function, where it is, what was done to the result)"""
    kd, reverse, jsd, tvd = (f"{name}LossConfig::" for name in ("Kd", "ReverseKl", "Jsd", "Tvd"))
    gkd = "trl trl/experimental/gkd/gkd_trainer.py generalized_jsd_loss"
    tune = "torchtune torchtune/modules/loss/kd_losses.py"
    fused = "Liger-Kernel src/liger_kernel/chunked_loss/jsd_loss.py LigerFusedLinearJSDFunction"
    kit = "DistillKit distillkit/lossfuncs"
    mlm = "Model-Optimizer modelopt/torch/distill"
    easy = "easydistill easydistill/kd/train.py DistillSFTTrainer._compute_white_box_distillation_loss"
    lm = "distillm distillm/losses.py"
    part = "its cross-entropy with the targets taken off"
    token = "its values per token averaged over those that count"
    samples = functools.partial(dense, shape=SAMPLES, masked=False)
    unmasked = functools.partial(dense, masked=False)
    mid = "torchdistill torchdistill/losses/mid_level.py KDLoss"
    yield kd + "torchdistill", {"temperature": 2}, samples("torchdistill"), torchdistill_with_targets, mid, part
    yield kd + "torchdistill_without_targets", {"temperature": 2}, samples("torchdistill_0"), torchdistill, mid, ""
    yield kd + "trl", {"temperature": 2}, dense("trl_kd"), trl(0), gkd, ""
    yield kd + "trl_without_labels", {"temperature": 2}, unmasked("trl_kd_sum"), trl(0), gkd, ""
    yield kd + "torchtune", {}, dense("torchtune_kd"), torchtune("ForwardKLLoss"), f"{tune} ForwardKLLoss", ""
    yield kd + "liger", {"temperature": 2}, dense("liger_kd"), liger(0), fused, ""
    for tail in ("", "zero", "bucket"):
        inputs = top_k(f"distillkit_kd_{tail}", padded=False) if tail else dense("distillkit_kd")
        # At another temperature than the log-probabilities' DistillKit's student and teacher part, see the docs.
        config = {"temperature": 1 if tail == "bucket" else 2} | ({"tail": tail} if tail else {})
        yield kd + "distillkit", config, inputs, distillkit("KLDLoss", "kl"), f"{kit}/kl.py KLDLoss", ""
    for tail in ("zero", "renormalise"):
        config = {"temperature": 2, "tail": tail}
        yield kd + "axolotl", config, top_k(f"axolotl_{tail}", tail == "zero"), axolotl(0.0), KERNEL, SQUARED
    path = "axolotl src/axolotl/integrations/kd/topk_logprob/forward_kl.py loss"
    yield kd + "axolotl_topk", {"temperature": 2, "tail": "zero"}, top_k("axolotl_topk"), axolotl_topk, path, ""
    yield kd + "axolotl_topk", {"tail": "drop"}, top_k("axolotl_topk_raw"), axolotl_topk, path, ""
    brewer = "TextBrewer src/textbrewer/losses.py kd_ce_loss"
    yield kd + "textbrewer", {}, dense("textbrewer"), textbrewer, brewer, ""
    yield kd + "model_optimizer", {"temperature": 2}, unmasked("model_optimizer"), model_optimizer, f"{mlm}/losses.py LogitsDistillationLoss", ""
    plugin = f"{mlm}/plugins/megatron.py"
    name = "model_optimizer_megatron"
    yield kd + name, {"temperature": 2}, dense("megatron"), megatron(), f"{plugin} LogitsKLLoss", token
    inputs = top_k("megatron_topk", padded=False)
    yield kd + name, {"temperature": 2, "tail": "renormalise"}, inputs, megatron(k=K), f"{plugin} TopKLogitsKLLoss", token
    yield kd + "easydistill", {"tail": "drop"}, top_k("easydistill"), easydistill("forward_kld"), easy, TWICE
    yield kd + "mdistiller", {}, samples("mdistiller"), mdistiller, "mdistiller mdistiller/distillers/KD.py kd_loss", ""
    yield kd + "repdistiller", {}, samples("repdistiller"), repdistiller, "RepDistiller distiller_zoo/KD.py DistillKL", ""
    yield kd + "distillm", {}, dense("distillm_kd"), distillm("forward_kl"), f"{lm} forward_kl", ""

    yield reverse + "trl", {"temperature": 2}, dense("trl_reverse"), trl(1), gkd, ""
    yield reverse + "trl_without_labels", {"temperature": 2}, unmasked("trl_reverse_sum"), trl(1), gkd, ""
    yield reverse + "liger", {"temperature": 2}, dense("liger_reverse"), liger(1), fused, ""
    yield reverse + "torchtune", {}, dense("torchtune_reverse"), torchtune("ReverseKLLoss"), f"{tune} ReverseKLLoss", ""
    config = {"temperature": 2, "tail": "renormalise"}
    yield reverse + "axolotl", config, top_k("axolotl_reverse", False), axolotl(1.0), KERNEL, SQUARED
    yield reverse + name, {"temperature": 2}, dense("megatron_reverse"), megatron(True), f"{plugin} LogitsKLLoss", token
    yield reverse + "easydistill", {"tail": "zero"}, whole("easydistill_reverse"), easydistill("reverse_kld"), easy, TWICE
    yield reverse + "distillm", {}, dense("distillm_reverse"), distillm("reverse_kl"), f"{lm} reverse_kl", ""

    for beta in (0, 0.3, 1):
        yield jsd + "trl", {"beta": beta, "temperature": 2}, dense(f"trl_jsd_{beta}"), trl(None), gkd, ""
        yield jsd + "liger", {"beta": beta, "temperature": 2}, dense(f"liger_jsd_{beta}"), liger(None), fused, ""
    yield jsd + "trl_without_labels", {"beta": 0.3, "temperature": 2}, unmasked("trl_jsd_sum"), trl(None), gkd, ""
    for tail in ("", "zero", "bucket"):
        inputs = top_k(f"distillkit_jsd_{tail}", padded=False) if tail else dense("distillkit_jsd")
        config = {"temperature": 1 if tail == "bucket" else 2} | ({"tail": tail} if tail else {})
        yield jsd + "distillkit", config, inputs, distillkit("JSDLoss", "jsd"), f"{kit}/jsd.py JSDLoss", ""
    config = {"beta": 0.3, "temperature": 2, "tail": "renormalise"}
    yield jsd + "axolotl", config, top_k("axolotl_jsd", False), axolotl(None), KERNEL, SQUARED
    yield jsd + "distillm", {"lambda": 0.9}, dense("distillm_jsd"), distillm("js_distance"), f"{lm} js_distance", ""

    for tail in ("", "zero", "bucket"):
        inputs = top_k(f"distillkit_tvd_{tail}", padded=False) if tail else dense("distillkit_tvd")
        config = {"temperature": 1 if tail == "bucket" else 2} | ({"tail": tail} if tail else {})
        yield tvd + "distillkit", config, inputs, distillkit("TVDLoss", "tvd"), f"{kit}/tvd.py TVDLoss", ""
    where = "Liger-Kernel test/transformers/test_tvd.py TorchTVDLoss"
    yield tvd + "liger", {}, dense("liger_tvd"), liger_tvd, where, "what its tests hold its GPU kernel against"
    yield tvd + "distillm", {}, dense("distillm_tvd"), distillm("tv_distance"), f"{lm} tv_distance", ""


# The temperature that a constructor sets, for the functions that ask for one.
TEMPERATURES = {"textbrewer": 4, "mdistiller": 4, "repdistiller": 4}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference-dir", help="folder with checkouts of the libraries (README.md lists them)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "conventions.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    authors = Authors(arguments.reference_dir)
    found = []
    for constructor, config, raw, function, where, brought in cases():
        inputs = tensors(raw)
        repository, path, name = where.split()
        constructor_name = constructor.split("::")[1]
        set_by = {"temperature": TEMPERATURES.get(constructor_name, 1)}
        try:
            with in_float64():
                value = function(authors, set_by | config, inputs)
        except Missing:
            print("conventions.json is left as it is: not every library has its checkout")
            return
        (gradient,) = torch.autograd.grad(value, inputs["student_logits"])
        assert value.dim() == 0 and torch.isfinite(value) and torch.isfinite(gradient).all(), constructor
        expected = {"value": value.item(), "grad": array(gradient)}
        reference = f"{repository}@{COMMITS[repository][:12]} {path} {name}"
        print(f"  {constructor} {config}: {value.item():.6g}, {reference}")
        listed = {n: array(t) for n, t in inputs.items()}
        # Padding, which JSON has no number for.
        if "log_probs" in listed:
            listed["log_probs"]["data"] = [v if math.isfinite(v) else None for v in listed["log_probs"]["data"]]
        case = {"constructor": constructor, "config": config, "reference": reference, "brought": brought}
        found.append(case | {"inputs": listed, "expected": expected})
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in found)
    arguments.out.write_text(f'{{"cases": [\n{lines}\n]}}\n')
    print(f"conventions: {len(found)} cases")


if __name__ == "__main__":
    main()
