"""Bringing tensors of the host to a device while it computes."""

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

Rows = Callable[[Tensor], list[Tensor]]  # from an index (on the host) to the rows at it, on the device


class Copies(Protocol):
    """Copies from the host to one device, made beside its other work where it can do both.

    The host does not wait for a copy; what the device is given to do afterwards finds it complete.
    """

    def send(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The tensors on the device. They must not be written to afterwards: they may be read later, or be the same."""

    def rows(self, tensors: Sequence[Tensor]) -> Rows:
        """What gathers rows of `tensors`, which stay on the host and whose first axis is the row, and sends them."""


class HostCopies:
    """Those of a device whose memory is the host's: nothing has to be moved."""

    def send(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return list(tensors)

    def rows(self, tensors: Sequence[Tensor]) -> Rows:
        return lambda index: [t.index_select(0, index) for t in tensors]
