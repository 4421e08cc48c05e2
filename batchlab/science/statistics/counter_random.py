"""Counter-based random numbers: the same on every device, in every order, for every batch size."""

import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# SplitMix64 (Steele, Lea and Flood 2014), as signed numbers: torch multiplies int64, which wraps as uint64 does.
_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIERS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)


def uniform(draws: "Tensor", stream: str, shape: tuple[int, ...] = ()) -> "Tensor":
    """Numbers in [0, 1) for each example, (examples, *shape) float32, bit-identical on CPU and CUDA.

    `draws` (examples,) int64 is one number per example, such as an augmentation receives; `stream` names the purpose,
    and numbers of other names or draws are independent. They have 24 bits, so `(u * n).long()` is 0 to n - 1.
    SplitMix64 seeded with a mix of draw and name; good for simulation, not for cryptography.
    """
    return uniforms(draws, {stream: shape})[stream]


def uniforms(draws: "Tensor", streams: Mapping[str, tuple[int, ...]]) -> "dict[str, Tensor]":
    """`uniform(draws, name, shape)` of several streams by name: the same numbers for the cost of one.

    On a GPU each operation is a kernel launch, however small: three streams take 32 instead of 86.
    """
    import torch

    if not streams:
        return {}
    counts = {name: math.prod(shape) for name, shape in streams.items()}
    draws = draws.to(torch.int64)
    states = _mixed(torch.stack([draws ^ _hashed(name) for name in streams], dim=1))
    # All streams get as many numbers as the longest one needs: the surplus costs no launch.
    steps = torch.arange(1, max(counts.values()) + 1, device=draws.device) * _GAMMA
    mixed = _mixed(states.unsqueeze(2) + steps)  # (examples, streams, numbers)
    numbers = _shifted(mixed, 40).to(torch.float32) * 2.0**-24
    return {
        name: numbers[:, i, : counts[name]].reshape(len(draws), *shape)
        for i, (name, shape) in enumerate(streams.items())
    }


@functools.cache
def _hashed(stream: str) -> int:
    """63 bits of the name's FNV-1a. Python's own hash of a string differs between processes."""
    key = 0xCBF29CE484222325
    for byte in stream.encode():
        key = (key ^ byte) * 0x100000001B3 % 2**64
    return key >> 1


def _mixed(z: "Tensor") -> "Tensor":
    """SplitMix64's finaliser: every bit of the result depends on every bit of `z`."""
    z = (z ^ _shifted(z, 30)) * _MULTIPLIERS[0]
    z = (z ^ _shifted(z, 27)) * _MULTIPLIERS[1]
    return z ^ _shifted(z, 31)


def _shifted(z: "Tensor", bits: int) -> "Tensor":
    """`z` shifted right and filled with zeros: torch's own shift fills with ones for negative numbers."""
    kept: Tensor = (z >> bits) & (2 ** (64 - bits) - 1)
    return kept
