"""Copies tensors from the host to a device while it computes."""

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

Rows = Callable[[Tensor], list[Tensor]]  # from an index (on the host) to those rows, on the device


class Copies(Protocol):
    """Copies from the host to one device, in parallel with its other work if it can do both.

    The host does not wait for a copy; the device finishes it before work that is queued later.
    """

    def send(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The tensors on the device. Do not write to the sources afterwards: they may be read later, or not copied."""

    def rows(self, tensors: Sequence[Tensor]) -> Rows:
        """A function that gathers rows (first axis) of `tensors`, which stay on the host, and sends them."""


class HostCopies:
    """For a device that uses the host's memory: nothing is copied."""

    def send(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return list(tensors)

    def rows(self, tensors: Sequence[Tensor]) -> Rows:
        return lambda index: [t.index_select(0, index) for t in tensors]
