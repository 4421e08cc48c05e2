"""Speech recognition with CTC: spectra of unequal length, and the targets of a batch in one row."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from batchlab import Task

LETTERS = 6  # and 0, the blank


class Listener(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.rnn, self.out = nn.GRU(5, width, batch_first=True), nn.Linear(width, LETTERS)

    def forward(self, spectra):
        return F.log_softmax(self.out(self.rnn(spectra)[0]), dim=-1).transpose(0, 1)  # time first


def collate(examples):
    spectra, targets = zip(*examples, strict=True)
    return (
        pad_sequence(list(spectra), batch_first=True),
        torch.cat(targets),
        torch.tensor([len(one) for one in spectra]),
        torch.tensor([len(one) for one in targets]),
    )


def spoken(n, seed):
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(n):
        letters = int(torch.randint(1, 5, (), generator=generator))
        spectrum = torch.rand(2 * letters + 3, 5, generator=generator)
        made.append((spectrum, torch.randint(1, LETTERS, (letters,), generator=generator)))
    return made


def datasets():
    return spoken(40, 0), spoken(20, 1)


criterion = nn.CTCLoss(blank=0)


def training_step(model, batch):
    spectra, targets, input_lengths, target_lengths = batch
    return criterion(model(spectra), targets, input_lengths, target_lengths)


# What you write:
def load():
    train, val = datasets()
    return Task(train=train, val=val, collate=collate, training_loss=training_step)
