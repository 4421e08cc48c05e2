"""Sets whose examples are trees, or do not stack, for tests."""

import collections
import dataclasses
import random
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset, WeightedRandomSampler

from batchlab import Task

Pair = collections.namedtuple("Pair", "image label")


@dataclasses.dataclass(frozen=True)
class Item:
    image: Tensor
    label: int
    name: str

    def __post_init__(self) -> None:
        assert self.image.shape == (4,), "an example, not a batch"


# From an input (4,), a label and an index to an example; and from a batch to its inputs and labels.
KINDS: dict[str, tuple[Callable[[Tensor, int, int], Any], Callable[[Any], tuple[Tensor, Tensor]]]] = {
    "tuple": (lambda x, y, i: (x, y), lambda b: b),
    "list": (lambda x, y, i: [x, y], lambda b: (b[0], b[1])),
    "named tuple": (lambda x, y, i: Pair(x, y), lambda b: (b.image, b.label)),
    "dataclass": (lambda x, y, i: Item(x, y, f"{i}.png"), lambda b: (b.image, b.label)),
    "nested": (lambda x, y, i: ((x[:2], [x[2:]]), y), lambda b: (torch.cat((b[0][0], b[0][1][0]), 1), b[1])),
    "dict": (
        lambda x, y, i: {"parts": {"a": x[:1], "b": x[1:]}, "label": y, "name": f"{i}.png", "mask": None},
        lambda b: (torch.cat(tuple(b["parts"].values()), 1), b["label"]),
    ),
}


class Trees(Dataset[Any]):
    """`n` examples of a kind."""

    def __init__(self, kind: str, n: int = 23) -> None:
        self.make, self.n = KINDS[kind][0], n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Any:
        x = torch.randn(4, generator=torch.Generator().manual_seed(index), dtype=torch.float64)
        return self.make(x, int(x[0] > 0), index)


def tree_task(kind: str, n: int = 23) -> Task:
    parts = KINDS[kind][1]
    return Task(
        train=Trees(kind, n),
        val=Trees(kind, 7),
        forward=lambda model, batch: model(parts(batch)[0]),
        loss=lambda outputs, batch: F.cross_entropy(outputs, parts(batch)[1], reduction="none"),
    )


class Sequences(Dataset[Any]):
    """`n` sequences of 1 to 6 steps of two numbers, and a label."""

    def __init__(self, n: int = 23) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        steps = torch.randn(1 + index % 6, 2, generator=torch.Generator().manual_seed(index))
        return steps, int(steps.sum() > 0)


class Graph:
    """A batch of graphs as their libraries have it: an object with a `to` method."""

    def __init__(self, nodes: Tensor, owner: Tensor, label: Tensor) -> None:
        self.nodes, self.owner, self.label = nodes, owner, label
        self.device: Any = None

    def to(self, device: Any) -> "Graph":
        moved = Graph(self.nodes.to(device), self.owner.to(device), self.label.to(device))
        moved.device = device
        return moved


def padded(examples: list[Any]) -> tuple[Tensor, Tensor]:
    steps, labels = zip(*examples, strict=True)
    return nn.utils.rnn.pad_sequence(list(steps), batch_first=True), torch.tensor(labels)


def shaken(examples: list[Any]) -> tuple[Tensor, Tensor]:
    """Like `padded`, with numbers from two random streams."""
    steps, labels = padded(examples)
    return steps + random.random() * torch.rand(len(labels), 1, 1), labels


def joined(examples: list[Any]) -> Graph:
    steps, labels = zip(*examples, strict=True)
    owner = torch.repeat_interleave(torch.arange(len(steps)), torch.tensor([len(one) for one in steps]))
    return Graph(torch.cat(steps), owner, torch.tensor(labels))


class Recurrent(nn.Module):
    """Its output depends on the padding, so on which examples are collated together."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.RNN(2, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, steps: Tensor) -> Any:
        return self.out(self.cell(steps)[1][0])


def ragged(collate: str = "padded", sampled: bool = False, kept: bool = True) -> Task:
    made = {"padded": padded, "shaken": shaken}[collate]
    train: Any = Sequences()
    return Task(
        train=[train[i] for i in range(len(train))] if kept else train,
        val=Sequences(7),
        collate=made,
        sampler=balanced if sampled else None,
        loss=lambda outputs, batch: F.cross_entropy(outputs, batch[1], reduction="none"),
    )


def balanced(seed: int) -> Iterator[int]:
    """Ten examples an epoch, from the global random stream, which is seeded before the call."""
    del seed
    return iter(WeightedRandomSampler([1.0 + i % 3 for i in range(23)], 10))
