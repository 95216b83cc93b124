"""The same losses as their authors (or the libraries people use) compute them, run from checkouts of their code.

Each function returns [(repository, what, value)] for one case and raises `authors.Missing` without a checkout. Values
are brought to the house convention (times temperature squared, masked rows left out) before they are compared.
"""

import torch
import torch.nn.functional as F


def kept(inputs, *names):
    """The named inputs as rows, masked rows removed."""
    mask = inputs.get("mask")
    keep = slice(None) if mask is None else mask.flatten()
    return [(inputs[n].flatten(0, -2) if inputs[n].is_floating_point() else inputs[n].flatten())[keep] for n in names]


def cross_entropy(authors, config, inputs):
    """Written out: (1 - e) * -log p(target) + e * mean(-log p)."""
    name = "target_probs" if "target_probs" in inputs else "targets"
    logits, target = kept(inputs, "student_logits", name)
    if name == "targets":
        target = F.one_hot(target, logits.shape[-1]).to(logits.dtype)
    e = config["label_smoothing"]
    target = (1 - e) * target + e / logits.shape[-1]
    log_probs = logits - logits.logsumexp(-1, keepdim=True)
    return [("written out", "-sum(q log p)", -(target * log_probs).sum(-1).mean())]


def kd(authors, config, inputs):
    student, teacher = kept(inputs, "student_logits", "teacher_logits")
    t = config["temperature"]
    mdistiller = authors.load("mdistiller", "mdistiller/distillers/KD.py", "kd_loss")["kd_loss"]
    repdistiller = authors.load("RepDistiller", "distiller_zoo/KD.py", "DistillKL")["DistillKL"]
    return [
        ("mdistiller", "kd_loss", mdistiller(student, teacher, t)),
        ("RepDistiller", "DistillKL", repdistiller(t)(student, teacher)),
    ]


def reverse_kl(authors, config, inputs):
    return jsd(authors, {**config, "beta": 1}, inputs)


def jsd(authors, config, inputs):
    path = "trl/experimental/gkd/gkd_trainer.py"
    trl = authors.load("trl", path, "generalized_jsd_loss")["generalized_jsd_loss"]
    logits = inputs["student_logits"], inputs["teacher_logits"]
    mask = inputs.get("mask")
    if mask is None:
        logits = tuple(kept(inputs, "student_logits", "teacher_logits"))
        labels = None
    else:
        labels = torch.where(mask, 0, -100)
    value = trl(*logits, labels=labels, beta=config["beta"], temperature=config["temperature"])
    return [("trl", "generalized_jsd_loss * temperature^2", value * config["temperature"] ** 2)]


def dkd(authors, config, inputs):
    names = ["_get_gt_mask", "_get_other_mask", "cat_mask", "dkd_loss"]
    mdistiller = authors.load("mdistiller", "mdistiller/distillers/DKD.py", *names)["dkd_loss"]
    student, teacher, targets = kept(inputs, "student_logits", "teacher_logits", "targets")
    value = mdistiller(student, teacher, targets, config["alpha"], config["beta"], config["temperature"])
    return [("mdistiller", "dkd_loss", value)]


def dist(authors, config, inputs):
    names = ["cosine_similarity", "pearson_correlation", "inter_class_relation", "intra_class_relation", "DIST"]
    path = "lib/models/losses/dist_kd.py"
    loss = authors.load("image_classification_sota", path, *names)["DIST"]
    loss = loss(config["beta"], config["gamma"], config["temperature"])
    return [("image_classification_sota", "DIST", loss(inputs["student_logits"], inputs["teacher_logits"]))]


def sparse_kd(authors, config, inputs):
    """TRL builds the coarse distribution; the tempering is written out on probabilities."""
    student, teacher = kept(inputs, "student_logits", "log_probs")
    mask = inputs.get("mask")
    indices = inputs["indices"].flatten(0, -2)[slice(None) if mask is None else mask.flatten()]
    at, t = config["sparse_temperature"], config["temperature"]
    student = (student / at - (student / at).logsumexp(-1, keepdim=True)).gather(-1, indices)
    if config["tail"] == "bucket":
        bucket = authors.load("trl", "trl/experimental/sdpo/loss_utils.py", "add_tail_bucket")["add_tail_bucket"]
        student, teacher = bucket(student), bucket(teacher)
    p, q = teacher.exp() ** (at / t), student.exp() ** (at / t)
    p, q = p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)
    what = ("trl", "add_tail_bucket, then tempered by powers of probabilities")
    if config["tail"] != "bucket":
        what = ("written out", "powers of probabilities")
    return [(*what, t**2 * (p * (p / q).log()).sum(-1).mean())]


def hint(authors, config, inputs):
    loss = authors.load("RepDistiller", "distiller_zoo/FitNet.py", "HintLoss")["HintLoss"]
    return [("RepDistiller", "HintLoss", loss()(inputs["student"], inputs["teacher"]))]


def attention_transfer(authors, config, inputs):
    student, teacher = inputs["student"], inputs["teacher"]
    loss = authors.load("RepDistiller", "distiller_zoo/AT.py", "Attention")["Attention"]
    found = [("RepDistiller", "Attention", loss(config["p"])([student], [teacher])[0])]
    if config["p"] == 2 and student.shape[2] == teacher.shape[2]:
        original = authors.load("attention-transfer", "utils.py", "at", "at_loss")["at_loss"]
        found.append(("attention-transfer", "at_loss", original(student, teacher)))
    return found


def sp(authors, config, inputs):
    loss = authors.load("RepDistiller", "distiller_zoo/SP.py", "Similarity")["Similarity"]
    return [("RepDistiller", "Similarity", loss()([inputs["student"]], [inputs["teacher"]])[0].sum())]


def rkd(authors, config, inputs):
    student, teacher = inputs["student"], inputs["teacher"]
    distance, angle = config["distance_weight"], config["angle_weight"]
    repdistiller = authors.load("RepDistiller", "distiller_zoo/RKD.py", "RKDLoss")["RKDLoss"]
    pdist = authors.load("RKD", "metric/utils.py", "pdist")["pdist"]
    original = authors.load("RKD", "metric/loss.py", "RkdDistance", "RKdAngle", pdist=pdist)
    flat = student.flatten(1), teacher.flatten(1)
    value = distance * original["RkdDistance"]()(*flat) + angle * original["RKdAngle"]()(*flat)
    return [
        ("RepDistiller", "RKDLoss", repdistiller(distance, angle)(student, teacher)),
        ("RKD", "RkdDistance and RKdAngle", value),
    ]


def review_kd(authors, config, inputs):
    stages = range(sum(name.startswith("student_") for name in inputs))
    features = [[inputs[f"{role}_{i}"] for i in stages] for role in ("student", "teacher")]
    mdistiller = authors.load("mdistiller", "mdistiller/distillers/ReviewKD.py", "hcl_loss")["hcl_loss"]
    original = authors.load("ReviewKD", "CIFAR-100/model/reviewkd.py", "hcl")["hcl"]
    return [("mdistiller", "hcl_loss", mdistiller(*features)), ("ReviewKD", "hcl", original(*features))]
