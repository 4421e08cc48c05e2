"""A tabular network: embeddings of three categories beside five numbers; batches are dicts."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset

from batchlab import Task


class Net(nn.Module):
    def __init__(self, cardinalities=(4, 6, 3), numbers=5, width=8):
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(n, 3) for n in cardinalities)
        self.norm = nn.LayerNorm(numbers)
        self.head = nn.Sequential(nn.Linear(3 * len(cardinalities) + numbers, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, categories, numbers):
        embedded = [embed(column) for embed, column in zip(self.embeddings, categories.unbind(1), strict=True)]
        return self.head(torch.cat([*embedded, self.norm(numbers)], 1)).squeeze(1)


class Table(Dataset):
    """An example is a row, a dict."""

    def __init__(self, columns):
        self.columns = columns

    def __len__(self):
        return len(self.columns["target"])

    def __getitem__(self, i):
        return {name: values[i] for name, values in self.columns.items()}


def table(n, seed):
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(n, 5, generator=generator)
    categories = torch.stack([torch.randint(0, top, (n,), generator=generator) for top in (4, 6, 3)], 1)
    target = (numbers[:, 0] + categories[:, 0] > 1.5).to(numbers.dtype)
    return Table({"categories": categories, "numbers": numbers, "target": target})


def datasets():
    return table(48, 0), table(16, 1)


def training_step(model, batch):
    return F.binary_cross_entropy_with_logits(model(batch["categories"], batch["numbers"]), batch["target"])


# What you write:
def load():
    train, val = datasets()
    return Task(
        train=train,
        val=val,
        forward=lambda model, batch: model(batch["categories"], batch["numbers"]),
        loss=lambda outputs, batch: F.binary_cross_entropy_with_logits(outputs, batch["target"], reduction="none"),
        metrics=lambda outputs, batch: {"accuracy": ((outputs > 0) == (batch["target"] > 0.5)).float()},
        higher_is_better={"accuracy": True},
    )
