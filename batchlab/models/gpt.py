"""A small language model."""

import torch
from torch import Tensor, nn

from batchlab import BadRequest
from batchlab.models.checked_arguments import check_count
from batchlab.models.transformer import blocks, start_small


class GPT(nn.Module):
    """A decoder-only transformer like GPT-2: learned positions, `depth` pre-norm blocks of causal attention.

    Maps tokens (examples, length), at most `context` long, to the logits of the next token of each, (examples, length,
    vocabulary). Embedding and head do not share weights.
    """

    def __init__(
        self,
        vocabulary: int | None = None,
        context: int | None = None,
        *,
        width: int,
        depth: int,
        heads: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if vocabulary is None or context is None:
            raise BadRequest("model=gpt predicts the next token of a text, but this data is not text: use data=text")
        check_count("vocabulary", vocabulary)
        check_count("context", context)
        self.blocks = blocks(width=width, depth=depth, heads=heads, causal=True, dropout=dropout)
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, vocabulary)
        start_small(self, depth)

    def forward(self, tokens: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.dropout(self.token(tokens) + self.position(positions))
        logits: Tensor = self.head(self.blocks(x))
        return logits
