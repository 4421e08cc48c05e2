"""The plugs: what measures a run without disturbing it."""

from batchlab.instruments.instrument import Instrument, empty

__all__ = ["Instrument", "empty"]
