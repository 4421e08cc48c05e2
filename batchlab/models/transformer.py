"""The building block of the transformers."""

import torch.nn.functional as F
from torch import Tensor, nn

from batchlab import BadRequest
from batchlab.models.checked_arguments import check_count, check_dropout


class Block(nn.Module):
    """Attention and a GELU network four times as wide, each after a LayerNorm and added to its input.

    Maps (examples, positions, width) to the same shape. With `causal` a position does not attend to later ones.
    """

    def __init__(self, width: int, heads: int, *, causal: bool, dropout: float) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, causal=causal, dropout=dropout)
        self.norm_2 = nn.LayerNorm(width)
        self.inner = nn.Linear(width, 4 * width)
        self.outer = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm_1(x)))
        added: Tensor = self.dropout(self.outer(F.gelu(self.inner(self.norm_2(x)))))
        return x + added


class Attention(nn.Module):
    """Self-attention with `heads` heads, by PyTorch's fused kernels if the device has them."""

    def __init__(self, width: int, heads: int, *, causal: bool, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.dropout = dropout
        self.query_key_value = nn.Linear(width, 3 * width)
        self.outer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        examples, positions, width = x.shape
        parted = self.query_key_value(x).view(examples, positions, 3, self.heads, width // self.heads)
        query, key, value = parted.permute(2, 0, 3, 1, 4)  # each (examples, heads, positions, width of a head)
        seen = F.scaled_dot_product_attention(
            query, key, value, is_causal=self.causal, dropout_p=self.dropout if self.training else 0.0
        )
        mixed: Tensor = self.outer(seen.transpose(1, 2).reshape(examples, positions, width))
        return mixed


def blocks(*, width: int, depth: int, heads: int, causal: bool, dropout: float) -> nn.Sequential:
    """`depth` blocks and a final LayerNorm; BadRequest for invalid sizes."""
    for name, value, least in (("width", width, 1), ("depth", depth, 0), ("heads", heads, 1)):
        check_count(name, value, least)
    check_dropout(dropout)
    if width % heads:
        raise BadRequest(
            f"model.width={width} must be divisible by model.heads={heads}: use a multiple, such as "
            f"model.width={-(-width // heads) * heads}"
        )
    made = [Block(width, heads, causal=causal, dropout=dropout) for _ in range(depth)]
    return nn.Sequential(*made, nn.LayerNorm(width))


def start_small(model: nn.Module, depth: int) -> None:
    """GPT-2's initial weights (Radford et al. 2019): normal with a deviation of 0.02, biases of 0; the last layer of a
    branch is smaller by sqrt(2 depth), so that the sum over the branches does not grow with their number."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02 / (2 * depth) ** 0.5 if name.endswith(".outer") else 0.02)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
