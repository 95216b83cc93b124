"""Writes `conventions.json`: the losses of other libraries as their own functions compute them. See README.md.

python golden/conventions.py --reference-dir DIR

Each case names a constructor of this library, its arguments and what else is set (`config`), and holds the value and
the student's gradient that the other library's function gives for the inputs. `brought` says what was done to them
where the function is only a part of what the constructor stands for, or has a mistake that is not copied. Without a
checkout there is nothing to write: the committed numbers stay as they are.
"""

import argparse
import functools
import json
import math
from pathlib import Path

import libraries as other
import numpy as np
import torch

from authors import COMMITS, Authors, Missing, in_float64
from losses import array, tensors
from shared import mask, pair

TOKENS, SAMPLES, VOCABULARY, K = (3, 4, 7), (5, 7), 7, 3


def dense(name, shape=TOKENS, masked=True):
    inputs = pair(f"conventions/{name}", shape, 2.0)
    if masked:
        inputs["mask"] = mask(f"conventions/{name}", shape[:-1])
    return inputs


def top_k(name, padded=True, of="teacher_logits"):
    """Student logits, and the teacher's K most probable classes at temperature 1 (or those that are the student's);
    one row lists fewer."""
    inputs = dense(name)
    inputs["indices"] = np.argsort(-inputs[of], -1, kind="stable")[..., :K]
    teacher = inputs.pop("teacher_logits")
    log_probs = teacher - np.log(np.exp(teacher).sum(-1, keepdims=True))
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


KERNEL = "axolotl src/axolotl/integrations/kd/kernels/liger.py LigerFusedLinearKLTopKLogprobFunction"
SQUARED = "divided by the labelled tokens, as its trainer does; the gradient times temperature squared, which it lacks"
TWICE = "times the labelled tokens, by which it divides twice"
TUNE = "torchtune torchtune/modules/loss/kd_losses.py"
GKD = "trl trl/experimental/gkd/gkd_trainer.py generalized_jsd_loss"
SERVER = "trl trl/experimental/server_distillation/server_distillation_trainer.py _compute_server_forward_kl_loss"
SELF = "trl trl/experimental/sdft/loss_utils.py compute_topk_self_distillation_loss"
FUSED = "Liger-Kernel src/liger_kernel/chunked_loss/jsd_loss.py LigerFusedLinearJSDFunction"
KIT = "DistillKit distillkit/lossfuncs"
OPTIMIZER = "Model-Optimizer modelopt/torch/distill"
MEGATRON = f"{OPTIMIZER}/plugins/megatron.py"
EASY = "easydistill easydistill/kd/train.py DistillSFTTrainer._compute_white_box_distillation_loss"
DISTILLM = "distillm distillm/losses.py"
KD_LOSS = "torchdistill torchdistill/losses/mid_level.py KDLoss"
TOKEN = "its values per token averaged over those that count"

samples = functools.partial(dense, shape=SAMPLES, masked=False)
unmasked = functools.partial(dense, masked=False)
whole_rows = functools.partial(top_k, padded=False)


# The cases: (constructor, config, inputs, function, where it is, what was done to its result).


def distillkit(loss, path, name):
    """Dense, and with both of its ways to handle what a top k leaves out."""
    for tail in (None, "zero", "bucket"):
        inputs = whole_rows(f"distillkit_{path}_{tail}") if tail else dense(f"distillkit_{path}")
        # At another temperature than the log-probabilities' its student and teacher part, see the book.
        config = {"temperature": 1, "tail": tail} if tail == "bucket" else {"temperature": 2, "tail": tail}
        config = {key: value for key, value in config.items() if value}
        function = other.distillkit(name, path)
        yield f"{loss}LossConfig::distillkit", config, inputs, function, f"{KIT}/{path}.py {name}", ""


def kd():
    loss = "KdLossConfig::"
    with_targets = "its cross-entropy with the targets taken off"
    at_2 = {"temperature": 2}
    yield loss + "torchdistill", at_2, samples("torchdistill"), other.torchdistill_with_targets, KD_LOSS, with_targets
    yield loss + "torchdistill_without_targets", at_2, samples("torchdistill_0"), other.torchdistill, KD_LOSS, ""
    yield loss + "trl", at_2, dense("trl_kd"), other.trl(0), GKD, ""
    yield loss + "trl_without_labels", at_2, unmasked("trl_kd_sum"), other.trl(0), GKD, ""
    for tail in ("bucket", "renormalise"):
        yield loss + "trl", {"temperature": 1, "tail": tail}, top_k(f"trl_server_{tail}"), other.trl_server, SERVER, ""
    yield loss + "torchtune", {}, dense("torchtune_kd"), other.torchtune("ForwardKLLoss"), f"{TUNE} ForwardKLLoss", ""
    yield loss + "liger", at_2, dense("liger_kd"), other.liger(0), FUSED, ""
    yield from distillkit("Kd", "kl", "KLDLoss")
    for tail in ("zero", "renormalise"):
        inputs = top_k(f"axolotl_{tail}", tail == "zero")
        yield loss + "axolotl", at_2 | {"tail": tail}, inputs, other.axolotl(0.0), KERNEL, SQUARED
    path = "axolotl src/axolotl/integrations/kd/topk_logprob/forward_kl.py loss"
    yield loss + "axolotl_topk", at_2 | {"tail": "zero"}, top_k("axolotl_topk"), other.axolotl_topk, path, ""
    yield loss + "axolotl_topk", {"tail": "drop"}, top_k("axolotl_topk_raw"), other.axolotl_topk, path, ""
    path = "TextBrewer src/textbrewer/losses.py kd_ce_loss"
    yield loss + "textbrewer", {}, dense("textbrewer"), other.textbrewer, path, ""
    path = f"{OPTIMIZER}/losses.py LogitsDistillationLoss"
    yield loss + "model_optimizer", at_2, unmasked("model_optimizer"), other.model_optimizer, path, ""
    name = loss + "model_optimizer_megatron"
    yield name, at_2, dense("megatron"), other.megatron(), f"{MEGATRON} LogitsKLLoss", TOKEN
    config, inputs = at_2 | {"tail": "renormalise"}, whole_rows("megatron_topk")
    yield name, config, inputs, other.megatron(k=K), f"{MEGATRON} TopKLogitsKLLoss", TOKEN
    yield loss + "easydistill", {"tail": "drop"}, top_k("easydistill"), other.easydistill("forward_kld"), EASY, TWICE
    path = "mdistiller mdistiller/distillers/KD.py kd_loss"
    yield loss + "mdistiller", {}, samples("mdistiller"), other.mdistiller, path, ""
    path = "RepDistiller distiller_zoo/KD.py DistillKL"
    yield loss + "repdistiller", {}, samples("repdistiller"), other.repdistiller, path, ""
    yield loss + "distillm", {}, dense("distillm_kd"), other.distillm("forward_kl"), f"{DISTILLM} forward_kl", ""


def reverse_kl():
    loss = "ReverseKlLossConfig::"
    at_2 = {"temperature": 2}
    yield loss + "trl", at_2, dense("trl_reverse"), other.trl(1), GKD, ""
    yield loss + "trl_without_labels", at_2, unmasked("trl_reverse_sum"), other.trl(1), GKD, ""
    yield loss + "liger", at_2, dense("liger_reverse"), other.liger(1), FUSED, ""
    path = f"{TUNE} ReverseKLLoss"
    yield loss + "torchtune", {}, dense("torchtune_reverse"), other.torchtune("ReverseKLLoss"), path, ""
    config, inputs = at_2 | {"tail": "renormalise"}, whole_rows("axolotl_reverse")
    yield loss + "axolotl", config, inputs, other.axolotl(1.0), KERNEL, SQUARED
    path = f"{MEGATRON} LogitsKLLoss"
    yield loss + "model_optimizer_megatron", at_2, dense("megatron_reverse"), other.megatron(True), path, TOKEN
    inputs = whole("easydistill_reverse")
    yield loss + "easydistill", {"tail": "zero"}, inputs, other.easydistill("reverse_kld"), EASY, TWICE
    path = f"{DISTILLM} reverse_kl"
    yield loss + "distillm", {}, dense("distillm_reverse"), other.distillm("reverse_kl"), path, ""


def jsd():
    loss = "JsdLossConfig::"
    for beta in (0, 0.3, 1):
        config = {"beta": beta, "temperature": 2}
        yield loss + "trl", config, dense(f"trl_jsd_{beta}"), other.trl(None), GKD, ""
        yield loss + "liger", config, dense(f"liger_jsd_{beta}"), other.liger(None), FUSED, ""
    config = {"beta": 0.3, "temperature": 2}
    yield loss + "trl_without_labels", config, unmasked("trl_jsd_sum"), other.trl(None), GKD, ""
    for tail in ("bucket", "renormalise"):
        of_student = {"beta": 0.3, "temperature": 1, "tail": tail}
        inputs = top_k(f"trl_self_{tail}", padded=False, of="student_logits")
        yield loss + "trl", of_student, inputs, other.trl_self, SELF, TOKEN
    yield from distillkit("Jsd", "jsd", "JSDLoss")
    inputs = whole_rows("axolotl_jsd")
    yield loss + "axolotl", config | {"tail": "renormalise"}, inputs, other.axolotl(None), KERNEL, SQUARED
    path = f"{DISTILLM} js_distance"
    yield loss + "distillm", {"lambda": 0.9}, dense("distillm_jsd"), other.distillm("js_distance"), path, ""


def tvd():
    loss = "TvdLossConfig::"
    yield from distillkit("Tvd", "tvd", "TVDLoss")
    path = "Liger-Kernel test/transformers/test_tvd.py TorchTVDLoss"
    yield loss + "liger", {}, dense("liger_tvd"), other.liger_tvd, path, "what its tests hold its GPU kernel against"
    path = f"{DISTILLM} tv_distance"
    yield loss + "distillm", {}, dense("distillm_tvd"), other.distillm("tv_distance"), path, ""


def skew():
    path = f"{DISTILLM} skewed_forward_kl"
    yield "SkewKlLossConfig::distillm", {}, dense("distillm_skew"), other.distillm("skewed_forward_kl"), path, ""
    name, path = "SkewReverseKlLossConfig::distillm", f"{DISTILLM} skewed_reverse_kl"
    yield name, {}, dense("distillm_skew_reverse"), other.distillm("skewed_reverse_kl"), path, ""


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
    for constructor, config, raw, function, where, brought in [*kd(), *reverse_kl(), *jsd(), *tvd(), *skew()]:
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
