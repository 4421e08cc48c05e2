"""Sets of tensors that stay on the host because they do not fit on the device."""

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from batchlab.task import Batch
from batchlab.training.data.batches import Stream, example_bytes, rebuilt, row, tensors
from batchlab.training.devices.device import Device

PIECE_BYTES = 4 * 2**20  # at most gathered at once, if batches are smaller: the device may be idle meanwhile


class HostRows(Stream):
    """A tuple or dict of tensors on the host; a batch is gathered there by index, and copied while the device computes.

    Examples are the same each time, and no random numbers are drawn for them. Training gets the same examples in the
    same order as if the tensors were on the device.
    """

    def __init__(self, data: Batch, device: Device, *, index: Tensor | None = None) -> None:
        self.data, self.device = data, device
        self._index = index  # of a subset: which examples of `data`
        self._copies = device.copies()
        self._rows = self._copies.rows(tensors(data))

    def __len__(self) -> int:
        return len(tensors(self.data)[0]) if self._index is None else len(self._index)

    def gather(self, index: Tensor) -> Batch:
        return rebuilt(self.data, self._rows(self._which(index)))

    def slices(self, size: int) -> Iterator[Batch]:
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            if self._index is None:
                yield rebuilt(self.data, self._copies.send([t[start:stop] for t in tensors(self.data)]))
            else:
                yield self.gather(torch.arange(start, stop))

    def subset(self, index: Tensor) -> "HostRows":
        return HostRows(self.data, self.device, index=self._which(index))

    def row(self, seed: int, start: int, stop: int, sizes: Sequence[int]) -> Iterator[Batch]:
        turns = itertools.cycle(sizes)
        while start < stop:
            size = min(next(turns), stop - start)
            yield self.gather(row(len(self), seed, start, size))
            start += size

    def example_bytes(self) -> int:
        return example_bytes(self.data)

    def piece(self, batch_size: int, most_bytes: int) -> int:
        most_bytes = min(most_bytes, PIECE_BYTES)
        return batch_size * max(1, most_bytes // (batch_size * example_bytes(self.data)))

    def _which(self, index: Tensor) -> Tensor:
        index = index.cpu()
        return index if self._index is None else self._index[index]
