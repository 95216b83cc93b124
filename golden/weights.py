"""Weights and images from names: any language reproduces them, so no large file is needed. README.md has the rule."""

import math

import torch

from random_numbers import uniform


def parameter(name: str, shape: torch.Size, prefix: str = "") -> torch.Tensor:
    """The value of a state-dict entry: computed in float64 from `uniform(prefix + name)`, rounded to float32."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    n = math.prod(shape)
    u = uniform(prefix + name, n)
    if len(shape) == 4:
        values = (2 * u - 1) * math.sqrt(6 / math.prod(shape[1:]))
    elif len(shape) == 2:
        values = (2 * u - 1) * math.sqrt(3 / shape[1])
    elif name == "fc.bias":
        values = 0.1 * (2 * u - 1)
    elif name.endswith("running_var"):
        values = 0.5 + u
    elif name.endswith(("running_mean", "bias")):
        values = 0.2 * (2 * u - 1)
    else:
        values = (0.25 if last_in_block(name) else 1.0) * (0.5 + u)
    return torch.tensor(values).float().reshape(shape)


def last_in_block(name: str) -> bool:
    """Batch norms that are scaled down so that depth does not blow the activations up."""
    return name.startswith("layer") and name.endswith(("bn2.weight", "bn3.weight"))


def fill(model: torch.nn.Module, prefix: str = "") -> torch.nn.Module:
    state = model.state_dict()
    model.load_state_dict({name: parameter(name, tensor.shape, prefix) for name, tensor in state.items()})
    return model


def images(shape: tuple) -> torch.Tensor:
    """(2u - 1) * 2 with u = uniform("input")."""
    return torch.tensor((2 * uniform("input", math.prod(shape)) - 1) * 2).float().reshape(shape)
