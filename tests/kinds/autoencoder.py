"""A variational autoencoder, as PyTorch's example has it: it draws in forward, and its loss is a sum."""

import torch
import torch.nn.functional as F
from torch import nn

from batchlab import Task


class Net(nn.Module):
    def __init__(self, pixels=12, latent=2):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(pixels, 8), nn.Tanh(), nn.Linear(8, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, 8), nn.Tanh(), nn.Linear(8, pixels))

    def forward(self, x):
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        drawn = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        return self.decoder(drawn), mean, log_variance


def negative_bound(reconstruction, mean, log_variance, x):
    """Reconstruction and divergence, summed over the examples."""
    entropy = F.binary_cross_entropy_with_logits(reconstruction, x, reduction="sum")
    return entropy - 0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum()


def pictures(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 1, generator=generator) * torch.rand(n, 12, generator=generator)


def datasets():
    return pictures(48, 0), pictures(16, 1)


def training_step(model, x):
    return negative_bound(*model(x), x)


# What you write:
def load():
    train, val = datasets()
    return Task(train=train, val=val, loss=lambda outputs, x: negative_bound(*outputs, x), reduction="sum")
