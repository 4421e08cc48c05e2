"""A token classifier: sentences are padded to the longest of the batch, and labels of -100 are ignored."""

import torch
import torch.nn.functional as F
from torch import nn

from batchlab import Task

TAGS = 4


class Tagger(nn.Module):
    """Returns a dict with its loss where it is given labels."""

    def __init__(self, width=8):
        super().__init__()
        self.embedding, self.classifier = nn.Embedding(20, width, padding_idx=0), nn.Linear(width, TAGS)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)

    def forward(self, input_ids, attention_mask, labels=None):
        x = self.embedding(input_ids)
        x = x + self.attention(x, x, x, key_padding_mask=attention_mask == 0, need_weights=False)[0]
        logits = self.classifier(x)
        if labels is None:
            return {"logits": logits}
        return {"loss": F.cross_entropy(logits.view(-1, TAGS), labels.view(-1)), "logits": logits}


def collate(examples):
    def padded(name, value):
        parts = [torch.tensor(example[name]) for example in examples]
        return nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=value)

    ids = padded("input_ids", 0)
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": padded("labels", -100)}


def sentences(n, seed):
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(n):
        length = int(torch.randint(1, 9, (), generator=generator))
        tags = torch.randint(0, TAGS, (length,), generator=generator)
        tags[0] = -100  # the first token of a sentence
        made.append(
            {"input_ids": torch.randint(1, 20, (length,), generator=generator).tolist(), "labels": tags.tolist()}
        )
    return made


def datasets():
    return sentences(40, 0), sentences(20, 1)


def training_step(model, batch):
    return model(**batch)["loss"]


# What you write:
def count(batch):
    return (batch["labels"] != -100).sum()


def load():
    train, val = datasets()
    return Task(train=train, val=val, collate=collate, training_loss=training_step, count=count)
