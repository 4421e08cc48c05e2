"""The plugs: what measures a run without disturbing it."""

from batchlab.instruments.instrument import Instrument
from batchlab.training.state import empty

__all__ = ["Instrument", "empty"]
