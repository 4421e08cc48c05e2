"""Triplets: an anchor, an example of its class and one of another, through one network."""

import torch
import torch.nn.functional as F
from torch import nn

from batchlab import Task


class Net(nn.Sequential):
    def __init__(self, width=8):
        super().__init__(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))


class Triplets(torch.utils.data.Dataset):
    def __init__(self, n, seed):
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(n, 6, generator=generator)
        self.y = self.x[:, 0] > 0
        self.order = torch.randperm(n, generator=generator)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        same = self.y[self.order] == self.y[i]
        return self.x[i], self.x[self.order[same][i % same.sum()]], self.x[self.order[~same][i % (~same).sum()]]


def datasets():
    return Triplets(48, 0), Triplets(16, 1)


def training_step(model, batch):
    return F.triplet_margin_loss(*map(model, batch), margin=1.0)


# What you write:
def load():
    train, val = datasets()
    return Task(
        train=train,
        val=val,
        forward=lambda model, batch: [model(x) for x in batch],
        loss=lambda outputs, batch: F.triplet_margin_loss(*outputs, margin=1.0, reduction="none"),
    )
