"""Pseudo-random numbers that any language can reproduce bit for bit: FNV-1a 64 of a name, then SplitMix64.

`uniform(name, n)` gives multiples of 2^-24 in [0, 1); nothing here depends on numpy's or torch's generators.
"""

import numpy as np

MASK = (1 << 64) - 1


def fnv1a(name: str) -> int:
    """FNV-1a, 64 bits, of the UTF-8 bytes of `name`."""
    digest = 0xCBF29CE484222325
    for byte in name.encode():
        digest = ((digest ^ byte) * 0x100000001B3) & MASK
    return digest


def splitmix64(state: np.ndarray) -> np.ndarray:
    """One step of SplitMix64 on every element (uint64 arithmetic wraps): advance by the golden gamma, then mix."""
    z = state + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def bits(name: str, n: int) -> np.ndarray:
    """Element i is splitmix64(fnv1a(name) + i), as uint64."""
    with np.errstate(over="ignore"):
        return splitmix64(np.uint64(fnv1a(name)) + np.arange(n, dtype=np.uint64))


def uniform(name: str, n: int) -> np.ndarray:
    """n numbers in [0, 1): the upper 24 bits of `bits`, times 2^-24, as float64 (exact in float32 too)."""
    return (bits(name, n) >> np.uint64(40)).astype(np.float64) / 2.0**24


def bell(name: str, shape: tuple, scale: float) -> np.ndarray:
    """Roughly normal with standard deviation `scale` (sum of three uniforms), rounded to multiples of 1/64.

    The rounding makes every number exact in float32 and short in a text file.
    """
    n = int(np.prod(shape))
    u = uniform(name, 3 * n).reshape(3, n).sum(axis=0)
    return (np.round((u - 1.5) * 2.0 * scale * 64.0) / 64.0).reshape(shape)


def integers(name: str, shape: tuple, high: int) -> np.ndarray:
    """Integers in [0, high)."""
    n = int(np.prod(shape))
    return np.floor(uniform(name, n) * high).astype(np.int64).reshape(shape)
