"""Published results of the same experiment, from plain values."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from batchlab.config.values import is_finite, is_plain, shown
from batchlab.errors import BadRequest


@dataclass(frozen=True)
class Published:
    """One published number of the same experiment."""

    what: str  # what it is, as text
    value: tuple[float, float]  # from and to; one number twice
    source: str  # the paper and its table
    spread: float | None = None  # of one number, as published
    batch_size: int | None = None  # at which it was measured; None: over all batch sizes
    ours: str | None = None  # the study's result that is shown next to it: see `batchlab.report.compare.published`
    where: Mapping[str, object] = field(default_factory=dict)  # dotted options of the runs that it is compared with


def published(value: Any) -> tuple[Published, ...]:
    """Published figures from plain values; BadRequest for anything else."""
    if not isinstance(value, list | tuple):
        raise BadRequest(f"published={shown(value)} is not a list of figures: write it in an experiment's file")
    found = tuple(figure(f"published[{position}]", entry) for position, entry in enumerate(value))
    for position, one in enumerate(found):
        if any(replace(other, value=one.value, spread=one.spread) == one for other in found[:position]):
            raise BadRequest(f"published[{position}] is there twice: give it another what, such as '{one.what} (2)'")
    return found


def plain_figures(figures: tuple[Published, ...]) -> list[dict[str, object]]:
    """The inverse of `published`."""
    return [asdict(figure) | {"value": list(figure.value)} for figure in figures]


def figure(name: str, value: Any) -> Published:
    """One figure from plain values, called `name` in messages; BadRequest for anything else."""
    given = dict(value) if isinstance(value, Mapping) else {}
    known = [f.name for f in fields(Published)]
    if unknown := [key for key in given if key not in known]:
        raise BadRequest(f"unknown key '{name}.{unknown[0]}': a published figure has {', '.join(known)}")
    for key in ("what", "source"):
        if not is_plain(given.get(key)):
            raise BadRequest(f"{name}.{key}={shown(given.get(key))} is invalid: every figure needs one, a text")
    span = given.get("value")
    ends = tuple(span) if isinstance(span, list | tuple) else (span, span)
    if len(ends) != 2 or not all(map(is_finite, ends)) or ends[0] > ends[1]:
        raise BadRequest(f"{name}.value={shown(span)} is invalid: give a number, or a list of two, the smaller first")
    spread, size, ours = (given.get(key) for key in ("spread", "batch_size", "ours"))
    if spread is not None and not (is_finite(spread) and spread >= 0):
        raise BadRequest(f"{name}.spread={shown(spread)} is invalid: it must be a number of at least 0, or null")
    if size is not None and not (is_finite(size) and isinstance(size, int) and size >= 1):
        raise BadRequest(f"{name}.batch_size={shown(size)} is invalid: it must be an integer of at least 1, or null")
    if ours is not None and not is_plain(ours):
        raise BadRequest(
            f"{name}.ours={shown(ours)} is invalid: it must name the result to compare with, such as best.val/accuracy"
        )
    where = given.get("where") or {}
    if not isinstance(where, Mapping):
        raise BadRequest(
            f"{name}.where={shown(where)} is invalid: it must hold options of the runs, such as {{precision: bf16}}"
        )
    return Published(given["what"], (float(ends[0]), float(ends[1])), given["source"], spread, size, ours, dict(where))
