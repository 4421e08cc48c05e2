"""Sets that stream, for tests: what is read depends on the example and the random streams alone."""

import os
import random
import signal
import time

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from batchlab import Task, uniform


class Noisy(Dataset):
    """`n` examples: its index, and a number from each random stream that a transform may use."""

    def __init__(self, n: int = 23) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[torch.Tensor, float, float, float]:
        return torch.tensor(index), random.random(), np.random.random(), torch.rand((), dtype=torch.float64).item()


class Large(Dataset):
    """Larger than memory, generated when it is read; records what was read."""

    def __init__(self, n: int = 10_000, numbers: int = 2**17) -> None:
        self.n, self.numbers = n, numbers
        self.reads: list[int] = []

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        self.reads.append(index)
        return torch.full((self.numbers,), float(index)), index % 3


class Faulty(Dataset):
    """Reading example 17 fails; if `worker_only`, then only in a worker process."""

    def __init__(self, how: str = "raise", worker_only: bool = False) -> None:
        self.how, self.worker_only = how, worker_only

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index == 17 and (get_worker_info() is not None or not self.worker_only):
            if self.how == "raise":
                raise KeyError("no such cat")
            if self.how == "shape":
                return torch.zeros(3), 0
            if self.how == "memory":
                raise MemoryError("no room for a cat")
            if self.how == "hang":
                time.sleep(600)
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros(2), index % 3


class Lazy(Dataset):
    """Opens its file of int64 records at the first read, like readers of HDF5 and of archives."""

    def __init__(self, path: str, n: int) -> None:
        self.path, self.n, self.file = path, n, None

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[torch.Tensor]:
        if self.file is None:
            self.file = open(self.path, "rb", buffering=0)  # noqa: SIM115, PTH123 - as such readers do
        self.file.seek(8 * index)
        return (torch.frombuffer(bytearray(self.file.read(8)), dtype=torch.int64)[0],)

    def __del__(self) -> None:
        if self.file is not None:
            self.file.close()


class Examples(Dataset):
    """40 classified examples of 6 numbers, the same at each read or, with `shaken`, different."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor, shaken: float) -> None:
        self.x, self.y, self.shaken = x, y, shaken

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = self.shaken * torch.randn(6) if self.shaken else 0
        return self.x[index] + noise, self.y[index]


class Data(Task):
    """`torture.tiny.Data` as Datasets."""

    def __init__(self, shaken: float = 0.0) -> None:
        from torture.tiny import Data as Held

        held = Held()
        super().__init__(**{**vars(held), "train": Examples(*held.train, shaken), "val": Examples(*held.val, 0.0)})


class Augmented(Task):
    """`torture.tiny.Data` with an augmentation on the device."""

    def __init__(self) -> None:
        from torture.tiny import Data as Held

        def shift(batch, draws):
            return batch[0] + uniform(draws, "shift", (6,)), batch[1]

        super().__init__(**{**vars(Held()), "augment": shift})


class InPlace(Task):
    """`Augmented`, but changes the batch in place."""

    def __init__(self) -> None:
        def shift(batch, draws):
            return batch[0].add_(uniform(draws, "shift", (6,))), batch[1]

        super().__init__(**{**vars(Augmented()), "augment": shift})
