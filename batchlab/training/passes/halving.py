"""Passing fewer examples at once where memory runs out."""

import gc
from collections.abc import Callable
from typing import TypeVar

from batchlab.training.devices.device import Device
from batchlab.training.devices.out_of_memory import is_out_of_memory

T = TypeVar("T")


def halved(attempt: Callable[[int], T], size: int, *, of: int, device: Device) -> tuple[T, int]:
    """`attempt(size)`, or where memory runs out in it `attempt` of half as many, and so on; and the size that fitted.

    There are `of` examples in all, so that more at once than these would be no other attempt. Each attempt begins
    anew. Raises the error of the last one where not even one example fits.
    """
    while True:
        try:
            return attempt(size), size
        except Exception as error:
            if size == 1 or not is_out_of_memory(error):
                raise
        # Out here, where the frames that held the memory are gone; all that the attempt made is young.
        give_back(device, young=True)
        size = -(-min(size, of) // 2)


def give_back(device: Device, *, young: bool = False) -> None:
    """Gives back what a failed attempt held. To be called after the `except` block: the error holds its frames.

    A frame that keeps its own error is part of a circle, which only the collector takes apart: half a second, where it
    is not told to look at `young` objects alone.
    """
    gc.collect(1 if young else 2)
    device.empty_cache()
