"""What comes after a convolution: BatchNorm, whose batch is the question, or what stands in its place."""

import math

from torch import Tensor, nn

from batchlab import BadRequest

NORMS = ("batch", "ghost", "group", "layer", "none")
MOST_GROUPS = 32  # of Wu and He 2018, arXiv:1803.08494


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm that waits for its ghosts: `model.ghost_batch` gives them to every BatchNorm layer."""

    ghost_batch: int | None = None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as in PyTorch
        if self.ghost_batch is None:
            raise BadRequest(
                "model.norm=ghost needs to know the examples whose statistics are taken together: add "
                "model.ghost_batch=32, or use model.norm=batch"
            )
        return super().forward(input)


def check_norm(norm: object) -> None:
    """BadRequest where `model.norm` is none of `NORMS`."""
    if norm not in NORMS:
        raise BadRequest(f"model.norm={norm} is unknown: use one of {', '.join(NORMS)}")


def norm_layer(norm: str, channels: int) -> nn.Module:
    """The layer for images of so many channels, (examples, channels, height, width).

    `layer` is LayerNorm over channels and pixels with a scale for each channel, which is GroupNorm in one group.
    `group` has up to 32 groups, of two channels or more: in groups of one, an image of one pixel would be 0.
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
    """Puts `norm` in the place of every BatchNorm2d of `model`; returns how many there were.

    `batch` leaves them, and `ghost` lets them wait for their ghosts: weights, statistics, eps and momentum stay, which
    a new layer would not have.
    """
    found = [(parent, name, child) for parent in model.modules() for name, child in parent.named_children()]
    norms = [(parent, name, child) for parent, name, child in found if isinstance(child, nn.BatchNorm2d)]
    for parent, name, child in norms:
        if norm == "ghost":
            child.__class__ = BatchNorm  # the class and not the layer, as `model.ghost_batch` does after it
        elif norm != "batch":
            setattr(parent, name, norm_layer(norm, child.num_features))
    return len(norms)
