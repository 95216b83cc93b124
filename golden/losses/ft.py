"""Factor transfer (Kim 2018, arXiv 1802.04977)."""

from types import SimpleNamespace

import torch.nn.functional as F

from shared import features

PER_SAMPLE = "mean over what is compared of each sample"


def cases():
    shapes = [
        ("same_size", {"p": 1}, (3, 4, 3, 3), None, 1.0),
        ("squared", {"p": 2}, (2, 3, 4, 4), None, 1.0),
        ("not_square", {"p": 1}, (2, 3, 2, 5), None, 1.0),
        ("batch_of_one", {"p": 1}, (1, 3, 3, 3), None, 1.0),
        ("larger_student", {"p": 1}, (2, 3, 8, 8), (2, 3, 4, 4), 1.0),
        ("larger_teacher_uneven", {"p": 1}, (2, 3, 4, 4), (2, 3, 7, 7), 1.0),
        ("maps", {"p": 1, "map_power": 2.0}, (3, 4, 3, 3), (3, 6, 3, 3), 1.0),
        ("maps_larger_student", {"p": 1, "map_power": 2.0}, (2, 3, 6, 6), (2, 5, 3, 3), 1.0),
        ("maps_squared_fourth_power", {"p": 2, "map_power": 4.0}, (2, 3, 3, 3), (2, 4, 3, 3), 1.0),
        ("maps_third_power", {"p": 1, "map_power": 3.0}, (2, 3, 3, 4), (2, 2, 3, 4), 1.0),
        ("scale_30", {"p": 1}, (3, 4, 3, 3), None, 30.0),
    ]
    return [(n, config, features(f"ft/{n}", s, t, scale)) for n, config, s, t, scale in shapes]


def loss(config, inputs):
    student, teacher = inputs["student"], inputs["teacher"]
    side = min(student.shape[2], teacher.shape[2])
    units = []
    for factor in (student, teacher):
        if factor.shape[2] > side:
            factor = F.adaptive_avg_pool2d(factor, (side, side))
        if config.get("map_power"):
            factor = factor.abs().pow(config["map_power"]).mean(1)
        vector = factor.flatten(1)
        units.append(vector / vector.pow(2).sum(1, keepdim=True).sqrt())
    per_sample = (units[0] - units[1]).abs().pow(config["p"]).mean(1)
    return per_sample.mean(), per_sample


def authors(authors, config, inputs):
    student, teacher = inputs["student"], inputs["teacher"]
    power = config.get("map_power")
    if power:
        if power % 2:
            return []
        code = authors.load("RepDistiller", "distiller_zoo/FT.py", "FactorTransfer")["FactorTransfer"]
        return [("RepDistiller", "FactorTransfer", code(int(power), config["p"])(student, teacher))]
    if config["p"] != 1 or student.shape != teacher.shape:
        return []
    original = authors.load("Factor-Transfer-pytorch", "utils.py", "FT")["FT"]
    code = authors.load("torchdistill", "torchdistill/losses/mid_level.py", "FTLoss")["FTLoss"]
    outputs = [{name: {"output": factor}} for name, factor in (("translator", student), ("paraphraser", teacher))]
    # `super().__init__()` finds no class of that name in a scope of its own.
    options = SimpleNamespace(norm_p=1, paraphraser_path="paraphraser", translator_path="translator", reduction="mean")
    return [
        ("Factor-Transfer-pytorch", "L1Loss of FT", F.l1_loss(original(student), original(teacher))),
        ("torchdistill", "FTLoss", code.forward(options, *outputs)),
    ]
