"""A sequence-to-sequence model: the encoder reads packed sequences, the decoder is taught with the target."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from batchlab import Task

PAD, VOCABULARY = 0, 12


class Seq2Seq(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.source, self.target = nn.Embedding(VOCABULARY, width), nn.Embedding(VOCABULARY, width)
        self.encoder, self.decoder = nn.LSTM(width, width, batch_first=True), nn.LSTM(width, width, batch_first=True)
        self.out = nn.Linear(width, VOCABULARY)

    def forward(self, source, lengths, target):
        packed = pack_padded_sequence(self.source(source), lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, state = self.encoder(packed)
        return self.out(self.decoder(self.target(target), state)[0])


def collate(pairs):
    lengths = torch.tensor([len(source) for source, _ in pairs])
    source, target = (
        pad_sequence(list(side), batch_first=True, padding_value=PAD) for side in zip(*pairs, strict=True)
    )
    return source, lengths, target


def pairs(n, seed):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 8, (n, 2), generator=generator).tolist()
    return [tuple(torch.randint(1, VOCABULARY, (size,), generator=generator) for size in both) for both in lengths]


def datasets():
    return pairs(40, 0), pairs(20, 1)


def training_step(model, batch):
    source, lengths, target = batch
    logits = model(source, lengths, target[:, :-1])
    return F.cross_entropy(logits.transpose(1, 2), target[:, 1:], ignore_index=PAD)


# What you write:
def load():
    train, val = datasets()
    return Task(
        train=train,
        val=val,
        collate=collate,
        training_loss=training_step,
        count=lambda batch: (batch[2][:, 1:] != PAD).sum(),
        cost=lambda pair: len(pair[0]) + len(pair[1]),
    )
