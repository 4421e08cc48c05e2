"""Tasks whose batches a DataLoader of the user makes."""

import random
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, WeightedRandomSampler
from tree_sets import Sequences, padded

from batchlab import Task

N_TRAIN, N_VAL = 23, 9


class Points(Dataset[Any]):
    """Inputs with noise that is drawn at each read, and classes."""

    def __init__(self, n: int, noise: float = 0.0) -> None:
        self.x = torch.randn(n, 6, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
        self.noise = noise

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.x[index] + self.noise * torch.randn(
            6, dtype=torch.float64
        ) + self.noise * random.random(), index % 3


class Stream(IterableDataset[Any]):
    """The same in order, divided among the workers."""

    def __init__(self, points: Points) -> None:
        self.points = points

    def __iter__(self) -> Iterator[Any]:
        worker = torch.utils.data.get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return (self.points[i] for i in range(first, len(self.points), step))


class Loaders:
    """A `make_loader`; `made` are its arguments."""

    def __init__(self, kind: str = "shuffled", workers: int = 0, noise: float = 0.0) -> None:
        self.kind, self.workers, self.noise = kind, workers, noise
        self.made: list[tuple[str, int, int]] = []

    def __call__(self, split: str, batch_size: int, seed: int) -> DataLoader[Any]:
        self.made.append((split, batch_size, seed))
        data: Any = Points(N_TRAIN, self.noise) if split == "train" else Points(N_VAL)
        options: dict[str, Any] = {"batch_size": batch_size, "num_workers": self.workers}
        if self.kind == "ragged":
            data, options["collate_fn"] = Sequences(len(data)), padded
        if split == "train" and self.kind == "iterable":
            data = Stream(data)
        elif split == "train" and self.kind == "balanced":
            options["sampler"] = WeightedRandomSampler([1.0 + i % 3 for i in range(N_TRAIN)], 40)
        elif split == "train":
            options["shuffle"] = True
        return DataLoader(data, **options)


def loss(outputs: Tensor, batch: Any) -> Tensor:
    return F.cross_entropy(outputs, batch[1], reduction="none")


def loaded(kind: str = "shuffled", workers: int = 0, noise: float = 0.0) -> Task:
    size = N_TRAIN if kind == "iterable" else None
    return Task.from_loaders(Loaders(kind, workers, noise), loss=loss, train_size=size)
