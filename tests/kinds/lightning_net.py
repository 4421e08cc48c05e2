"""A LightningModule: automatic optimization, two parameter groups, and an accuracy that validation logs."""

import lightning
import torch
import torch.nn.functional as F
from lora import datasets, training_step  # noqa: F401 - the harness takes them from each kind
from torch import nn

from batchlab import Task


class Net(lightning.LightningModule):
    def __init__(self, width=8):
        super().__init__()
        self.body, self.head = nn.Linear(6, width), nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.body(x).relu())

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("accuracy", (self(x).argmax(1) == y).float().mean())

    def configure_optimizers(self):
        head = {"params": self.head.parameters(), "lr": 0.5, "weight_decay": 0.0}
        return torch.optim.SGD([{"params": self.body.parameters()}, head], lr=0.05, momentum=0.9, weight_decay=0.01)


def plain_optimizer(model, lr):
    head = {"params": model.head.parameters(), "lr": 10 * lr, "weight_decay": 0.0}
    return torch.optim.SGD([{"params": model.body.parameters()}, head], lr=lr, momentum=0.9, weight_decay=0.01)


# What you write:
def load():
    train, val = datasets()
    return Task.from_lightning(Net, train=train, val=val, logged={"accuracy": True})
