"""Copies to a CUDA device, on a separate stream."""

import itertools
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from batchlab.training.devices.copies import Rows
from batchlab.training.devices.out_of_memory import NotPinnedError, is_out_of_memory

BUFFERS = 2  # one is filled while the other is copied


class CudaCopies:
    """A stream that copies from page-locked memory while the device's current stream computes.

    Four things make it correct. The source is page-locked, or the host would wait for the copy. The current stream
    waits for the event after the copy before any later work. The result is recorded as in use by the current stream:
    it was allocated on the copying stream, which otherwise would reuse its memory as soon as Python releases it, while
    kernels may still read it. And the source is kept alive until the copy is done.
    """

    def __init__(self, device: torch.device, cuda: Any = None) -> None:
        self._device, self._cuda = device, cuda or torch.cuda
        self._stream: Any = None  # created at the first copy: a stream needs a context
        self._under_way: deque[tuple[Any, list[Tensor]]] = deque()  # the event after each copy, and its sources

    def send(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return self.sent(tensors)[0]

    def rows(self, tensors: Sequence[Tensor]) -> Rows:
        return PinnedRows(tensors, self)

    def sent(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], Any]:
        """The tensors on the device, and the event after which their sources may be written to."""
        while self._under_way and self._under_way[0][0].query():
            self._under_way.popleft()
        if self._stream is None:
            self._stream = self._cuda.Stream(self._device)
        locked = [t if t.device == self._device or t.is_pinned() else pinned(t) for t in tensors]
        with self._cuda.stream(self._stream):
            made = [t.to(self._device, non_blocking=True) for t in locked]
        copied = self._stream.record_event()
        computing = self._cuda.current_stream(self._device)
        computing.wait_event(copied)
        for tensor in made:
            tensor.record_stream(computing)
        self._under_way.append((copied, locked))
        return made, copied


def pinned(tensor: Tensor) -> Tensor:
    """A copy in page-locked memory; NotPinnedError if none is available."""
    try:
        return tensor.pin_memory()
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise NotPinnedError(str(error)) from error
        raise


class PinnedRows:
    """Gathers rows of host tensors into one of `BUFFERS` page-locked buffers, in turn, and copies them from there.

    Locking pages takes longer than copying them, so the buffers are reused, as large as the largest batch so far. The
    host waits if the copy from a buffer is not done when it has to be filled again.
    """

    def __init__(self, tensors: Sequence[Tensor], copies: CudaCopies) -> None:
        self._tensors, self._copies = tensors, copies
        self._buffers: list[list[Tensor]] = [[] for _ in range(BUFFERS)]
        self._copied: list[Any] = [None] * BUFFERS  # the event after the last copy from each
        self._turns = itertools.cycle(range(BUFFERS))

    def __call__(self, index: Tensor) -> list[Tensor]:
        turn = next(self._turns)
        if self._copied[turn] is not None:
            self._copied[turn].synchronize()
        if not self._buffers[turn] or len(self._buffers[turn][0]) < len(index):
            self._buffers[turn] = [pinned(t.new_empty((len(index), *t.shape[1:]))) for t in self._tensors]
        filled = [buffer[: len(index)] for buffer in self._buffers[turn]]
        for tensor, into in zip(self._tensors, filled, strict=True):
            torch.index_select(tensor, 0, index, out=into)
        made, self._copied[turn] = self._copies.sent(filled)
        return made
