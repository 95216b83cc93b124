"""Mean squared difference of hidden states (TinyBERT, Jiao 2020, arXiv 1909.10351)."""

from types import SimpleNamespace

import torch.nn.functional as F

from authors import in_float64
from shared import features, mask, rows


def cases(name="hidden_mse"):
    shapes = [
        # name, shape, masked, scale
        ("tokens", (2, 3, 5), False, 1.0),
        ("padded", (3, 4, 3), True, 1.0),
        ("padded_differently", (2, 5, 2), True, 2.0),
        ("batch_of_one", (1, 4, 6), True, 1.0),
        ("one_token", (3, 1, 4), False, 1.0),
        ("wide", (2, 2, 33), False, 0.5),
        ("scale_30", (2, 3, 4), True, 30.0),
    ]
    found = []
    for case, shape, masked, scale in shapes:
        inputs = features(f"{name}/{case}", shape, scale=scale)
        if masked:
            inputs["mask"] = mask(f"{name}/{case}", shape[:-1])
        found.append((case, {}, inputs))
    return found


@rows
def loss(config, inputs):
    return F.mse_loss(inputs["student"], inputs["teacher"], reduction="none").mean(-1)


def distillkit(authors, kind, inputs):
    """One matched layer through DistillKit's own function."""
    path = "distillkit/lossfuncs/hidden_state.py"
    given = {name: object for name in ("CausalLMOutput", "TeacherSignal", "HiddenStateMapping")}
    function = authors.load("DistillKit", path, "compute_hs_loss", **given)["compute_hs_loss"]
    one = [SimpleNamespace(hidden_states=[inputs[side]]) for side in ("student", "teacher")]
    mapping = SimpleNamespace(layer_mapping=[(0, 0)], projections=None)
    with in_float64():
        return function(kind, *one, mask=inputs.get("mask"), hidden_state_mapping=mapping)


def authors(authors, config, inputs):
    textbrewer = authors.load("TextBrewer", "src/textbrewer/losses.py", "hid_mse_loss")["hid_mse_loss"]
    return [
        ("TextBrewer", "hid_mse_loss", textbrewer(inputs["student"], inputs["teacher"], inputs.get("mask"))),
        ("DistillKit", "hs_mse", distillkit(authors, "mse", inputs)),
    ]
