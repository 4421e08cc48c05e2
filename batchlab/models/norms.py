"""The normalisation after a convolution: BatchNorm or an alternative that does not depend on the batch."""

import math

from torch import Tensor, nn

from batchlab import BadRequest

NORMS = ("batch", "ghost", "group", "layer", "none")
MOST_GROUPS = 32  # of Wu and He 2018, arXiv:1803.08494


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm that must be made a ghost BatchNorm, as `model.ghost_batch` does with every BatchNorm layer."""

    ghost_batch: int | None = None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as in PyTorch
        if self.ghost_batch is None:
            raise BadRequest(
                "model.norm=ghost needs the number of examples per group of statistics: add "
                "model.ghost_batch=32, or use model.norm=batch"
            )
        return super().forward(input)


def check_norm(norm: object) -> None:
    """BadRequest if `model.norm` is not one of `NORMS`."""
    if norm not in NORMS:
        raise BadRequest(f"model.norm={norm} is unknown: use one of {', '.join(NORMS)}")


def norm_layer(norm: str, channels: int) -> nn.Module:
    """The layer for images of this many channels, (examples, channels, height, width).

    `layer` is LayerNorm over channels and pixels with a scale for each channel, that is GroupNorm with one group.
    `group` has up to 32 groups, of two channels or more: with groups of one, an image of one pixel would be 0.
    """
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "ghost":
        return BatchNorm(channels)
    if norm == "layer":
        return nn.GroupNorm(1, channels)
    if norm == "group":
        return nn.GroupNorm(math.gcd(MOST_GROUPS, channels // 2) if channels % 2 == 0 else 1, channels)
    return nn.Identity()


def replace_batch_norm(model: nn.Module, norm: str) -> int:
    """Replaces every BatchNorm2d of `model` by `norm`; returns how many there were.

    `batch` does not change them, and `ghost` keeps their weights, statistics, eps and momentum, which a new layer would
    lose.
    """
    found = [(parent, name, child) for parent in model.modules() for name, child in parent.named_children()]
    norms = [(parent, name, child) for parent, name, child in found if isinstance(child, nn.BatchNorm2d)]
    for parent, name, child in norms:
        if norm == "ghost":
            child.__class__ = BatchNorm  # the class, not the layer, as `model.ghost_batch` does after it
        elif norm != "batch":
            setattr(parent, name, norm_layer(norm, child.num_features))
    return len(norms)
