"""Random numbers that are a function of a counter: the same on every device, in every order, for every batch size."""

import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# Of SplitMix64 (Steele, Lea and Flood 2014), as signed numbers: int64 wraps as uint64 does, and torch multiplies it.
_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIERS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)


def uniform(draws: "Tensor", stream: str, shape: tuple[int, ...] = ()) -> "Tensor":
    """Numbers in [0, 1) for each example, (examples, *shape) float32, bit-identical on CPU and CUDA.

    `draws` (examples,) int64 is one number per example, such as an augmentation is handed; `stream` names what the
    numbers are for, and numbers of other names or draws are unrelated. They have 24 bits, so `(u * n).long()` is
    0 to n - 1. SplitMix64 begun at a mix of draw and name; good for simulation, none for secrets.
    """
    return uniforms(draws, {stream: shape})[stream]


def uniforms(draws: "Tensor", streams: Mapping[str, tuple[int, ...]]) -> "dict[str, Tensor]":
    """`uniform(draws, name, shape)` of several streams by name, the same numbers for the operations of one.

    On a GPU each operation is a kernel launch, however few numbers it makes: three streams take 32 in place of 86.
    """
    import torch

    if not streams:
        return {}
    counts = {name: math.prod(shape) for name, shape in streams.items()}
    draws = draws.to(torch.int64)
    begun = _mixed(torch.stack([draws ^ _hashed(name) for name in streams], dim=1))
    # All streams get as many numbers as the longest one takes: what is too much costs no launch.
    steps = torch.arange(1, max(counts.values()) + 1, device=draws.device) * _GAMMA
    mixed = _mixed(begun.unsqueeze(2) + steps)  # (examples, streams, numbers)
    numbers = _shifted(mixed, 40).to(torch.float32) * 2.0**-24
    return {
        name: numbers[:, i, : counts[name]].reshape(len(draws), *shape)
        for i, (name, shape) in enumerate(streams.items())
    }


@functools.cache
def _hashed(stream: str) -> int:
    """63 bits of the name's FNV-1a. Python's own hash of a string is another one in each process."""
    key = 0xCBF29CE484222325
    for byte in stream.encode():
        key = (key ^ byte) * 0x100000001B3 % 2**64
    return key >> 1


def _mixed(z: "Tensor") -> "Tensor":
    """SplitMix64's finaliser: every bit of the result hangs on every bit of `z`."""
    z = (z ^ _shifted(z, 30)) * _MULTIPLIERS[0]
    z = (z ^ _shifted(z, 27)) * _MULTIPLIERS[1]
    return z ^ _shifted(z, 31)


def _shifted(z: "Tensor", bits: int) -> "Tensor":
    """`z` to the right, filled with zeros: torch's own shift of a negative number fills with ones."""
    kept: Tensor = (z >> bits) & (2 ** (64 - bits) - 1)
    return kept
