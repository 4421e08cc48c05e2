"""What `batchlab find` left in a study: the largest micro-batch that fits, search by search."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchlab.printable import printable
from batchlab.recording.files import read_json
from batchlab.recording.knobs import flat

FOLDER = "find"  # of a study
# What moves the bytes of a training step.
MOVES_BYTES = ("data", "model", "optimizer", "precision", "device")


@dataclass(frozen=True)
class Search:
    """One finished or unfinished search."""

    status: str  # found, nothing fits, failed, interrupted, running
    largest: int | None  # examples of a micro-batch that ran twice
    accumulate: int  # micro-batches per step
    larger: int | None  # the next size, which did not fit; None: none was tried
    outcome: str  # what that came to: oom, kernel_limit, ...
    limit_bytes: int | None  # None: what was free on the device
    limit_given: bool
    knee: int | None  # smallest micro-batch within 10% of the best speed
    settings: Mapping[str, Any]  # dotted, of MOVES_BYTES
    written_at: str


def searches(study: Path, damaged: list[str] | None = None) -> tuple[Search, ...]:
    """Every search of a study, the last written last; what cannot be read is said in `damaged`."""
    found = []
    for path in sorted((study / FOLDER).glob("*.json")):
        try:
            found.append(_search(read_json(path)))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            if damaged is not None:
                damaged.append(printable(f"{path} cannot be read: {error or type(error).__name__}"))
    return tuple(sorted(found, key=lambda search: search.written_at))


def settings(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Of a run's dotted settings those that move its bytes, so that a search can be told to be of the same kind."""
    return {name: value for name, value in asked.items() if name.split(".")[0] in MOVES_BYTES and value is not None}


def _search(values: Mapping[str, Any]) -> Search:
    larger = values.get("larger") or {}
    knee = values.get("knee") or {}
    config = flat({name: value for name, value in values["config"].items() if name in MOVES_BYTES})
    return Search(
        status=str(values["status"]),
        largest=_whole(values["largest"]),
        accumulate=_whole(values["config"].get("accumulate")) or 1,
        larger=_whole(larger.get("size")),
        outcome=str(larger.get("outcome", "")),
        limit_bytes=_whole(values.get("memory_limit_bytes")),
        limit_given=bool(values.get("memory_limit_given")),
        knee=_whole(knee.get("size")),
        settings=settings(config),
        written_at=str(values.get("written_at", "")),
    )


def _whole(value: Any) -> int | None:
    """A count, or None; anything else is a damaged file."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value
