"""A physics-informed network: u'' = -sin(x) at points inside, u = 0 at points of the boundary, the two ends."""

import math

import torch
from torch import nn
from torch.utils.data import TensorDataset

from batchlab import Task


class Net(nn.Sequential):
    def __init__(self, width=8):
        super().__init__(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, 1))


def residual(model, x):
    """u'' + sin(x) at each of the points, by differentiating twice."""
    x = x.detach().requires_grad_()
    u = model(x)
    (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
    return curvature + torch.sin(x)


def points(n, seed):
    """Two sets: a batch has as many points inside as on the boundary."""
    generator = torch.Generator().manual_seed(seed)
    inside = torch.rand(n, 1, generator=generator) * math.pi
    return TensorDataset(inside, torch.randint(0, 2, (n, 1), generator=generator) * math.pi)


def datasets():
    return points(48, 0), points(16, 1)


def training_step(model, batch):
    inside, boundary = batch
    return residual(model, inside).square().mean() + model(boundary).square().mean()


# What you write:
def load():
    train, val = datasets()
    return Task(train=train, val=val, training_loss=training_step)
