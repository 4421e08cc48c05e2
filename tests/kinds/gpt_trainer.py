"""A trainer of a small GPT, whose model returns its logits and its loss."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset

from batchlab import Task

VOCABULARY, CONTEXT = 11, 6


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.register_buffer("mask", torch.tril(torch.ones(CONTEXT, CONTEXT)))

    def forward(self, x):
        b, t, c = x.size()
        q, k, v = (part.view(b, t, self.heads, -1).transpose(1, 2) for part in self.c_attn(x).split(c, dim=2))
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(k.size(-1))
        scores = scores.masked_fill(self.mask[:t, :t] == 0, float("-inf"))
        return self.c_proj((F.softmax(scores, dim=-1) @ v).transpose(1, 2).reshape(b, t, c))


class GPT(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(VOCABULARY, width), nn.Embedding(CONTEXT, width)
        self.ln_1, self.ln_2, self.ln_f = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, 2)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.lm_head = nn.Linear(width, VOCABULARY, bias=False)
        self.wte.weight = self.lm_head.weight  # tied

    def forward(self, idx, targets=None):
        x = self.wte(idx) + self.wpe(torch.arange(idx.size(1), device=idx.device))
        x = x + self.attn(self.ln_1(x))
        x = self.ln_f(x + self.mlp(self.ln_2(x)))
        if targets is None:
            return self.lm_head(x[:, [-1], :]), None  # to generate, the last place is enough
        logits = self.lm_head(x)
        return logits, F.cross_entropy(logits.view(-1, VOCABULARY), targets.view(-1), ignore_index=-1)


class Windows(Dataset):
    def __init__(self, tokens):
        self.tokens = tokens

    def __len__(self):
        return (len(self.tokens) - 1) // CONTEXT

    def __getitem__(self, index):
        window = self.tokens[index * CONTEXT : (index + 1) * CONTEXT + 1]
        return window[:-1], window[1:]


def tokens():
    drawn = torch.randint(0, VOCABULARY, (400,), generator=torch.Generator().manual_seed(0))
    return drawn[:300], drawn[300:]


def datasets():
    train, val = tokens()
    return Windows(train), Windows(val)


def training_step(model, batch):
    return model(*batch)[1]


# What you write:
def load():
    return Task.language_model(*tokens(), context=CONTEXT, training_loss=training_step)
