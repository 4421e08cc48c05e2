"""What measuring has to do with the device: waiting for it, and leaving it as training had it."""

from collections.abc import Callable

import torch

from batchlab.training.meter import Meter
from batchlab.training.peaks import peaks_of


def meter_of(device: torch.device) -> Meter:
    """A meter for training on `device`, with the real clock."""
    if device.type == "cuda":
        return Meter(peaks=peaks_of(device), drain=lambda: torch.cuda.synchronize(device))
    return Meter(peaks=peaks_of(device), settle=busy_vector_units())


def busy_vector_units() -> Callable[[], object]:
    """Work of 0.2 ms for the processor's vector units, to be done before the clock goes on.

    They power down after half a millisecond without use, as while an instrument writes a line, and the next step then
    takes 20% longer (batch 256, MLP on digits, Xeon at 2.8 GHz): a measurement would be charged after all.
    """
    a = torch.ones(128, 128)
    product = torch.empty(128, 128)

    def settle() -> None:
        for _ in range(3):
            torch.mm(a, a, out=product)

    return settle
