"""Random numbers that are a function of a counter: the same on every device, in every order, for every batch size."""

import functools
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
    import torch

    count = 1
    for size in shape:
        count *= size
    # The name by FNV-1a. Python's own hash of a string is another one in each process.
    name = functools.reduce(lambda key, byte: (key ^ byte) * 0x100000001B3 % 2**64, stream.encode(), 0xCBF29CE484222325)
    begun = _mixed(draws.to(torch.int64) ^ (name >> 1))
    steps = torch.arange(1, count + 1, device=draws.device) * _GAMMA
    mixed = _mixed(begun.unsqueeze(1) + steps)
    return (_shifted(mixed, 40).to(torch.float32) * 2.0**-24).view(len(draws), *shape)


def _mixed(z: "Tensor") -> "Tensor":
    """SplitMix64's finaliser: every bit of the result hangs on every bit of `z`."""
    z = (z ^ _shifted(z, 30)) * _MULTIPLIERS[0]
    z = (z ^ _shifted(z, 27)) * _MULTIPLIERS[1]
    return z ^ _shifted(z, 31)


def _shifted(z: "Tensor", bits: int) -> "Tensor":
    """`z` to the right, filled with zeros: torch's own shift of a negative number fills with ones."""
    kept: Tensor = (z >> bits) & (2 ** (64 - bits) - 1)
    return kept
