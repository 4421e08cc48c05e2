"""A small vision transformer."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from batchlab import BadRequest
from batchlab.models.checked_arguments import check_count, image, outputs
from batchlab.models.transformer import blocks, start_small


class ViT(nn.Module):
    """Patches of the image as tokens (Dosovitskiy et al. 2021, arXiv:2010.11929): `depth` blocks of attention.

    Positions are learned; the mean over the patches is classified, not a separate token (Beyer et al. 2022,
    arXiv:2205.01580). There is no BatchNorm, so examples are independent.

    Maps images (examples, channels, height, width), whose sides are multiples of `patch`, to logits (examples,
    num_classes).
    """

    def __init__(
        self,
        input_shape: Sequence[int] | None = None,
        num_classes: int | None = None,
        *,
        width: int,
        depth: int,
        heads: int,
        patch: int,
        dropout: float = 0.0,
        num_outputs: int | None = None,
    ) -> None:
        super().__init__()
        check_count("patch", patch)
        channels, rows, columns = image("vit", input_shape)
        if rows % patch or columns % patch:
            fits = [size for size in range(1, min(rows, columns) + 1) if rows % size == 0 and columns % size == 0]
            nearest = min(fits, key=lambda size: abs(size - patch))
            raise BadRequest(f"model.patch={patch} must divide the {rows}x{columns} images: use model.patch={nearest}")
        self.blocks = blocks(width=width, depth=depth, heads=heads, causal=False, dropout=dropout)
        self.patches = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)
        self.positions = nn.Parameter(0.02 * torch.randn(rows // patch * (columns // patch), width))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, outputs("vit", num_classes, num_outputs))
        start_small(self, depth)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        seen = self.blocks(self.dropout(tokens + self.positions))
        logits: Tensor = self.head(seen.mean(dim=1))
        return logits
