"""Label noise: deliberately wrong labels, which a network can only memorise (Zhang et al. 2017, arXiv:1611.03530)."""

import math

import torch
from torch import Tensor

from batchlab import BadRequest


def with_wrong_labels(labels: Tensor, share: float, *, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """`labels` (examples,) with a `share` of them, rounded, replaced by another class; and which ones (examples,).

    Which labels are wrong, and how, depends on the seed alone: the wrong labels of 0.1 are among those of 0.2.
    """
    number = isinstance(share, int | float) and not isinstance(share, bool) and math.isfinite(share)
    if not number or not 0 <= share < 1:
        raise BadRequest(
            f"data.label_noise={share} is invalid: give a share of the training labels, from 0 to below 1, "
            "such as data.label_noise=0.2"
        )
    generator = torch.Generator(labels.device).manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator, device=labels.device)
    # A shift by 1 to classes - 1 never gives the label itself.
    shift = torch.randint(1, classes, labels.shape, generator=generator, device=labels.device)
    corrupted = torch.zeros(labels.shape, dtype=torch.bool, device=labels.device)
    corrupted[order[: round(share * len(labels))]] = True
    return torch.where(corrupted, (labels + shift) % classes, labels), corrupted
