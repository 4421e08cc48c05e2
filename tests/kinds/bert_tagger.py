"""A model of transformers, made from a config: BERT for tokens, whose sentences a data collator pads."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertConfig, BertForTokenClassification

from batchlab import Task

TAGS = 3


def build(width=8, dropout=0.0):
    sizes = {"hidden_size": width, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 2 * width}
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    config = BertConfig(vocab_size=20, max_position_embeddings=12, num_labels=TAGS, **sizes, **rates)
    return BertForTokenClassification(config)


def collate(examples):
    def padded(name, value):
        return nn.utils.rnn.pad_sequence([e[name] for e in examples], batch_first=True, padding_value=value)

    ids = padded("input_ids", 0)
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": padded("labels", -100)}


def sentences(n, seed):
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(n):
        length = int(torch.randint(2, 9, (), generator=generator))
        ids = torch.randint(1, 20, (length,), generator=generator)
        labels = ids % TAGS
        labels[0] = -100  # the token that begins a sentence
        made.append({"input_ids": ids, "labels": labels})
    return made


def datasets():
    return sentences(40, 0), sentences(20, 1)


def training_step(model, batch):
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return F.cross_entropy(logits.view(-1, TAGS), batch["labels"].view(-1))


# What you write:
def load():
    train, val = datasets()
    return Task.from_hugging_face(BertForTokenClassification, train, val, collate=collate)
