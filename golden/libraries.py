"""The losses of other libraries, run from their checkouts, for `conventions.py`.

One function per library's function: (authors, config, inputs) -> value. `config` holds the temperature, what else the
constructor takes (`beta`, `lambda`), and the `tail` of a sparse teacher.
"""

import functools
from abc import ABCMeta
from enum import Enum
from types import SimpleNamespace
from typing import Callable, List, Optional, Tuple, Union

import torch
import torch.nn as nn
import torch.nn.functional as F


def labels(inputs):
    return torch.where(inputs["mask"], 1, -100)


def mean(per_token, inputs):
    """What a caller does with a value per token: the mean over those that count."""
    return (per_token * inputs["mask"]).sum() / inputs["mask"].sum()


def torchdistill(authors, config, inputs, targets=None):
    loss = authors.load("torchdistill", "torchdistill/losses/mid_level.py", "KDLoss")["KDLoss"]
    alpha = 0.0 if targets is None else 0.3
    loss = loss("a", "b", "a", "b", temperature=config["temperature"], alpha=alpha, beta=1)
    student, teacher = inputs["student_logits"], inputs["teacher_logits"]
    both = loss({"a": {"b": student}}, {"a": {"b": teacher}}, targets)
    return both if targets is None else both - alpha * F.cross_entropy(student, targets)


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


def trl_server(authors, config, inputs):
    """A server's top k, with `loss_add_tail` and without."""
    path = "trl/experimental/distillation/distillation_trainer.py"
    shared = authors.load("trl", path, "_jsd_divergence", "_reduce_divergence_loss")
    path = "trl/experimental/server_distillation/server_distillation_trainer.py"
    name = "_compute_server_forward_kl_loss"
    tail = authors.load("trl", path, "_add_tail_bucket")
    loss = authors.load("trl", path, name, **shared, **tail)[name]
    reduce = shared["_reduce_divergence_loss"]
    trainer = SimpleNamespace(loss_add_tail=config["tail"] == "bucket", _reduce_divergence_loss=reduce)
    served = {"topk_logprobs": inputs["log_probs"], "topk_token_ids": inputs["indices"]}
    return loss(trainer, served, inputs["student_logits"].log_softmax(-1), labels(inputs))


def trl_self(authors, config, inputs):
    """The student's own top k, with `distillation_add_tail` and without. The function wants all of the teacher's
    logits: the classes that the case leaves open share what is left, and take no part in its value."""
    path, name = "trl/experimental/sdft/loss_utils.py", "compute_topk_self_distillation_loss"
    inner = authors.load("trl", path, "add_tail_bucket", "compute_divergence")
    loss = authors.load("trl", path, name, **inner)[name]
    student, listed = inputs["student_logits"], inputs["log_probs"]
    k = listed.shape[-1]
    left = (1 - listed.exp().sum(-1, keepdim=True)) / (student.shape[-1] - k)
    teacher = left.log().expand(student.shape).scatter(-1, inputs["indices"], listed)
    given = {"distillation_topk": k, "distillation_add_tail": config["tail"] == "bucket"}
    return mean(loss(student, teacher, distillation_alpha=config["beta"], **given), inputs)


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
        identity, target = torch.eye(student.shape[-1], dtype=student.dtype), labels(inputs).flatten()
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
        given = {"Tuple": Tuple, "Union": Union, "List": List, "FloatTensor": torch.Tensor}
        given |= {"abstractmethod": lambda f: f, "partial": functools.partial}
        name = "LigerFusedLinearDistillationBase"
        path = "src/liger_kernel/chunked_loss/fused_linear_distillation.py"
        given |= authors.load("Liger-Kernel", path, name, **given)
        given |= authors.load("axolotl", f"{folder}/utils.py", "normalize_logprobs", **given)
        function = "LigerFusedLinearKLTopKLogprobFunction"
        function = authors.load("axolotl", f"{folder}/kernels/liger.py", function, **given)[function]
        log_probs, valid = axolotl_targets(config, inputs)
        student = inputs["student_logits"]
        normalise = config["tail"] == "renormalise"
        arguments = (student, torch.eye(student.shape[-1], dtype=student.dtype), inputs["indices"], log_probs, valid)
        # Labels, bias, weights of hard and soft part, ignored label, temperature, beta, compiled, chunk, hard part.
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
        trainer = SimpleNamespace(max_seq_length=inputs["mask"].shape[1], distillation_type=kind)
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
