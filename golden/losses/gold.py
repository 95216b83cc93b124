"""GOLD: universal logit distillation on merged tokens (Hugging Face TRL, 2025)."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

from authors import in_float64
from shared import bell, integers

PER_SAMPLE = "each group of tokens, sample after sample; the loss is the mean over all groups"


def cases():
    """Ends are bytes; -1 is padding."""
    one = [([2, 5, 9, 10], [2, 9, 10]), ([3, 4, 6], [1, 3, 6])]
    long = [([1, 2, 3, 7, 8], [3, 5, 6, 8]), ([4, 6], [2, 4, 5, 6]), ([5, 9, 11], [9, 11])]
    fixed = {"Fixed": {"matched": 0.7, "unmatched": 0.4}}
    shapes = [
        # name, ends, classes, pairs, merge, weights, beta, temperature, scale
        ("first", one, (7, 9), 0, "First", "Overlap", 0.5, 1, 1.0),
        ("last", one, (7, 9), 0, "Last", "Overlap", 0.5, 1, 1.0),
        ("hybrid_first", long, (8, 6), 4, "First", "Overlap", 0.5, 1, 1.0),
        ("hybrid_last", long, (6, 8), 3, "Last", "Overlap", 0.5, 1, 1.0),
        ("fixed_weights", one, (7, 7), 3, "First", fixed, 0.1, 1, 1.0),
        ("all_matched", one, (5, 5), 5, "Last", "Overlap", 0.9, 1, 1.0),
        ("forward_kl", one, (6, 8), 4, "First", "Overlap", 0, 1, 1.0),
        ("reverse_kl", one, (6, 8), 4, "Last", "Overlap", 1, 1, 1.0),
        ("temperature_2", long, (6, 8), 3, "First", fixed, 0.5, 2, 1.0),
        ("batch_of_one", long[:1], (6, 5), 2, "Last", "Overlap", 0.5, 1, 1.0),
        ("truncated", [([2, 5, 7], [2, 4, 9]), ([3], [3, 6])], (5, 6), 2, "First", "Overlap", 0.5, 1, 1.0),
        ("scale_30", one, (6, 8), 3, "First", "Overlap", 0.5, 1, 30.0),
    ]
    found = []
    for case, texts, classes, pairs, merge, weights, beta, t, scale in shapes:
        inputs = {}
        for side, (role, name) in enumerate([("student", "own"), ("teacher", "foreign")]):
            length = max(len(text[side]) for text in texts)
            shape = (len(texts), length, classes[side])
            inputs[f"{role}_logits"] = bell(f"gold/{case}/{role}_logits", shape, scale)
            # Equal probabilities have no order: numbers a little apart, exact in float32 still.
            inputs[f"{role}_logits"] += (torch.arange(shape[0] * shape[1] * shape[2]).reshape(shape) % 61).numpy() / 4096
            inputs[f"{name}_ids"] = integers(f"gold/{case}/{name}_ids", shape[:2], classes[side])
            inputs[f"{name}_ends"] = torch.tensor([text[side] + [-1] * (length - len(text[side])) for text in texts]).numpy()
        if pairs:  # student i with teacher (2 i + 1) mod the largest odd number of classes
            odd = classes[1] - (classes[1] + 1) % 2
            inputs["fixed_pairs"] = torch.tensor([[i, (2 * i + 1) % odd] for i in range(pairs)]).numpy()
        config = {"merge": merge, "weights": weights, "beta": beta, "temperature": t}
        found.append((case, config, inputs))
    return found


def groups(own, foreign):
    """Cuts at the bytes where both have a boundary; what remains on both sides is one more group."""
    own, foreign = ([end for end in ends.tolist() if end >= 0] for ends in (own, foreign))
    shared, found = sorted(set(own) & set(foreign)), []
    for side in (own, foreign):
        cuts = [0] + [side.index(end) + 1 for end in shared]
        found.append([list(range(a, b)) for a, b in zip(cuts, cuts[1:], strict=False)] + [list(range(cuts[-1], len(side)))])
    return [pair for pair in zip(*found, strict=True) if pair[0] and pair[1]]


def merged(probs, ids, group, merge):
    if merge == "First":
        full, others = group[0], group[1:]
    else:
        full, others = group[-1], group[:-1]
    for position in others:
        probs = torch.cat([probs[:full], (probs[full] * probs[position, ids[position]])[None], probs[full + 1 :]])
    return probs[full]


def jsd(p, q, beta):
    """Partial sums of the generalised divergence; p the teacher's, q the student's, neither summing to 1."""
    if beta == 0:
        return (p * (p / q).log()).sum()
    if beta == 1:
        return (q * (q / p).log()).sum()
    m = beta * p + (1 - beta) * q
    return (beta * p * (p / m).log() + (1 - beta) * q * (q / m).log()).sum()


def loss(config, inputs):
    t, rows = config["temperature"], []
    pairs = inputs.get("fixed_pairs", torch.empty(0, 2, dtype=torch.long))
    classes = [inputs[name].shape[-1] for name in ("student_logits", "teacher_logits")]
    rest = [[c for c in range(classes[side]) if c not in pairs[:, side].tolist()] for side in (0, 1)]
    share = len(pairs) / classes[1]
    weights = [share, 1 - share] if config["weights"] == "Overlap" else list(config["weights"]["Fixed"].values())
    for b in range(len(inputs["own_ids"])):
        q, p = (F.softmax(inputs[name][b] / t, -1) for name in ("student_logits", "teacher_logits"))
        for own, foreign in groups(inputs["own_ends"][b], inputs["foreign_ends"][b]):
            student = merged(q, inputs["own_ids"][b], own, config["merge"])
            teacher = merged(p, inputs["foreign_ids"][b], foreign, config["merge"])
            row = student.new_zeros(())
            if len(pairs):
                row = row + weights[0] * jsd(teacher[pairs[:, 1]], student[pairs[:, 0]], config["beta"])
            if rest[0] and rest[1]:
                width = max(len(rest[0]), len(rest[1]))
                ordered = [
                    F.pad(side[kept].sort(descending=True).values, (0, width - len(kept)))
                    for side, kept in ((student, rest[0]), (teacher, rest[1]))
                ]
                row = row + weights[1] * (ordered[0] - ordered[1]).abs().sum()
            rows.append(t**2 * row)
    return torch.stack(rows).mean(), torch.stack(rows)


def authors(authors, config, inputs):
    """One sample at a time through all of TRL's loss, each by its share of the groups.

    Its "bayesian" strategy shifts the logits by one and its "observed" one does not: both get rows that predict the token
    at their own position.
    """
    path = "trl/experimental/gold/gold_trainer.py"
    divergence = authors.load("trl", path, "generalized_jsd_loss")["generalized_jsd_loss"]
    trainer = SimpleNamespace(generalized_jsd_loss=divergence)
    uld = authors.load("trl", path, "ULDLoss", GOLDConfig=object, GOLDTrainer=trainer)["ULDLoss"]
    fixed = config["weights"]["Fixed"] if config["weights"] != "Overlap" else {}
    settings = SimpleNamespace(
        uld_crossentropy_weight=0.0,
        uld_distillation_weight=1.0,
        uld_student_temperature=config["temperature"],
        uld_teacher_temperature=config["temperature"],
        uld_skip_student_eos=False,
        uld_skip_teacher_eos=False,
        use_extended_uld=True,
        uld_token_merge_strategy={"First": "observed", "Last": "bayesian"}[config["merge"]],
        uld_use_hybrid_loss="fixed_pairs" in inputs,
        uld_hybrid_matched_weight=fixed.get("matched"),
        uld_hybrid_unmatched_weight=fixed.get("unmatched"),
        beta=config["beta"],
    )
    function = uld(settings)
    if "fixed_pairs" in inputs:
        function._vocab_mapping = {t: s for s, t in inputs["fixed_pairs"].tolist()}
        function._teacher_matched_ids = set(function._vocab_mapping)
        function._student_matched_ids = set(function._vocab_mapping.values())
        function.mapping_tensor = torch.full((max(function._vocab_mapping) + 1,), -1)
        for t, s in function._vocab_mapping.items():
            function.mapping_tensor[t] = s

    def side(role, name, b):
        ends = inputs[f"{name}_ends"][b]
        length = int((ends >= 0).sum())
        logits, ids = inputs[f"{role}_logits"][b : b + 1, :length], inputs[f"{name}_ids"][b : b + 1, :length]
        spare = logits[:, :1] * 0
        logits = torch.cat([spare, logits] if config["merge"] == "First" else [logits, spare], 1)
        prompt = torch.zeros(1, 1, dtype=torch.long)
        offsets = torch.stack([ends[:length] * 0, ends[:length]], -1)[None]
        offsets = torch.cat([torch.zeros(1, 1, 2, dtype=torch.long), offsets], 1)
        return logits, torch.cat([prompt - 100, ids], 1), torch.cat([prompt, ids], 1), offsets

    value, total = 0.0, 0
    for b in range(len(inputs["own_ids"])):
        count = len(groups(inputs["own_ends"][b], inputs["foreign_ends"][b]))
        both = [side("student", "own", b), side("teacher", "foreign", b)]
        arguments = [argument for pair in zip(*both, strict=True) for argument in pair]
        with in_float64():
            value = value + count * function._compute_distillation_loss(*arguments)
        total += count
    return [("trl", "ULDLoss * temperature^2, samples weighted by their groups", config["temperature"] ** 2 * value / total)]
