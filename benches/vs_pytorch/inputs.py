"""The inputs that both sides compute with: values from a counter, so that the results can be compared.

`src/bin/vs_pytorch/inputs.rs` has the same rule.
"""

import math

import torch

MASK = 0xFFFFFFFF
BLOCK = 1 << 22
SPARSE_CLASSES = 64


def uniform(seed: int, shape: tuple, width: float) -> torch.Tensor:
    """Values in [-width / 2, width / 2), f32: 24 bits of a hash of the seed and the position."""
    values = torch.empty(math.prod(shape))
    for start in range(0, len(values), BLOCK):
        block = values[start : start + BLOCK]
        h = torch.arange(start, start + len(block), dtype=torch.int64)
        h = (((h + seed * 0x9E3779B9) & MASK) * 2654435761) & MASK
        h ^= h >> 15
        h = (h * 2246822519) & MASK
        h ^= h >> 13
        block.copy_((h >> 8).float().div_(2**24).sub_(0.5).mul_(width))
    return values.reshape(shape)


def targets(rows: int, classes: int) -> torch.Tensor:
    return (torch.arange(rows) * 7919) % classes


class Logits:
    """Logits of student and teacher, class ids, and a teacher that lists 64 classes of each row."""

    def __init__(self, rows: int, classes: int):
        self.shape = (rows, classes)
        self.student = uniform(1, self.shape, 8.0)
        self.teacher = uniform(2, self.shape, 12.0)
        self.targets = targets(rows, classes)
        # Classes a stride apart, from another start in each row; nine tenths of the probability are theirs.
        stride = classes // SPARSE_CLASSES
        self.indices = torch.arange(SPARSE_CLASSES) * stride + (torch.arange(rows) % stride)[:, None]
        listed = torch.log_softmax(uniform(3, (rows, SPARSE_CLASSES), 12.0).double(), 1) + math.log(0.9)
        self.log_probs = listed.float()


class Linear:
    """Hidden states `[tokens, hidden]` and output weights `[vocabulary, hidden]` of student and teacher."""

    def __init__(self, tokens: int, hidden: int, vocabulary: int):
        self.shape = (tokens, hidden, vocabulary)
        self.hidden = uniform(1, (tokens, hidden), 2.0)
        self.weight = uniform(2, (vocabulary, hidden), 0.5)
        self.teacher_hidden = uniform(3, (tokens, hidden), 2.0)
        self.teacher_weight = uniform(4, (vocabulary, hidden), 0.5)
        self.targets = targets(tokens, vocabulary)
