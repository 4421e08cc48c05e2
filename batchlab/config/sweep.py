"""The settings of a sweep: frozen, and checked when they are made."""

from collections.abc import Sequence
from dataclasses import dataclass

from batchlab.config.options import SWEEP, SweepOptions
from batchlab.config.values import shown
from batchlab.errors import BadRequest


@dataclass(frozen=True, kw_only=True)
class SweepConfig(SweepOptions):
    """How the points of one sweep are run, independent of what they are."""


def one_sweep(requested: Sequence[SweepConfig]) -> SweepConfig:
    """The settings that all points of a sweep request; BadRequest where they differ."""
    first, *others = dict.fromkeys(requested)
    for other in others:
        name = next(name for name in SWEEP if getattr(first, name) != getattr(other, name))
        one, two = (_typed(getattr(each, name)) for each in (first, other))
        raise BadRequest(
            f"{name}={one} and {name}={two} in one sweep: {name} must be the same for all points; give it one value"
        )
    return first


def _typed(value: object) -> str:
    return f"[{','.join(value)}]" if isinstance(value, tuple) else shown(value)
