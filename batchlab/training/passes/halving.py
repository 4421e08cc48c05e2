"""Retries with fewer examples at once if memory runs out."""

import gc
from collections.abc import Callable
from typing import TypeVar

from batchlab.training.devices.device import Device
from batchlab.training.devices.out_of_memory import is_out_of_memory

T = TypeVar("T")


def halved(attempt: Callable[[int], T], size: int, *, of: int, device: Device) -> tuple[T, int]:
    """`attempt(size)`, or if memory runs out, `attempt` of half as many, and so on; also returns the size that fitted.

    There are `of` examples in all; sizes above that are equivalent. Each attempt starts from the beginning. Raises the
    error of the last attempt if not even one example fits.
    """
    while True:
        try:
            return attempt(size), size
        except Exception as error:
            if size == 1 or not is_out_of_memory(error):
                raise
        # After the except block, whose frames held the memory; all objects of the attempt are young.
        give_back(device, young=True)
        size = -(-min(size, of) // 2)


def give_back(device: Device, *, young: bool = False) -> None:
    """Releases the memory of a failed attempt. Call it after the `except` block: the error keeps its frames alive.

    A frame that refers to its own error is part of a reference cycle, which only the garbage collector frees: this
    takes half a second, unless it looks at `young` objects alone.
    """
    gc.collect(1 if young else 2)
    device.empty_cache()
