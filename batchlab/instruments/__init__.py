"""The instruments, which measure a run without disturbing it."""

from batchlab.instruments.instrument import Instrument
from batchlab.records.quantity import Chart, Quantity
from batchlab.training.state import empty

__all__ = ["Chart", "Instrument", "Quantity", "empty"]
