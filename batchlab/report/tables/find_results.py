"""The results of `batchlab find` in a study: the largest micro-batch that fits, for each search."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchlab.config.key import requested, seen
from batchlab.config.option_row import MEMORY, SPEED
from batchlab.config.options import MEASURING, MICRO_BATCHES, option_of, that_move
from batchlab.printable import printable
from batchlab.recording.files import read_json
from batchlab.recording.flat_options import flat
from batchlab.science.memory.largest_fit import Outcome, Probe, speeds
from batchlab.science.statistics.uncertainty import Interval

FOLDER = "find"  # of a study


@dataclass(frozen=True)
class Search:
    """One finished or unfinished search."""

    status: str  # a `SearchStatus`, or a text that this version does not know
    largest: int | None  # examples of a micro-batch that ran twice
    accumulate: int  # micro-batches per step
    larger: int | None  # the next size, which did not fit; None: not tried
    outcome: str  # of that size: oom, kernel_limit, ...
    limit_bytes: int | None  # None: all memory that was free on the device
    limit_given: bool
    knee: int | None  # smallest micro-batch within 10% of the best speed
    speeds: Mapping[int, Interval]  # examples per second of each micro-batch that fits, with memory as a run has it
    alone: bool  # whether these had the machine to themselves
    precision: str
    settings: Mapping[str, object]  # dotted, of what it searched for: `settings`
    device_model: str | None  # of GPU or processor; None: not recorded
    written_at: str


def searches(study: Path, damaged: list[str] | None = None) -> tuple[Search, ...]:
    """Every search of a study, the newest last; `damaged` gets a message for each one that cannot be read."""
    found = []
    for path in sorted((study / FOLDER).glob("*.json")):
        try:
            found.append(_search(read_json(path)))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            if damaged is not None:
                damaged.append(printable(f"{path} cannot be read: {error or type(error).__name__}"))
    return tuple(sorted(found, key=lambda search: search.written_at))


def settings(options: Mapping[str, object]) -> dict[str, object]:
    """The dotted options of a run that decide what a search for its largest micro-batch finds, and at what speed.

    The size is searched for, the number of micro-batches per step hardly matters, and probes have no instruments.
    """
    found = {}
    for name in that_move(options, SPEED | MEMORY, without=(*MICRO_BATCHES, *MEASURING)):
        row, value = option_of(name), options[name]
        if row is not None and value is not None and value != row.before:
            found[name] = seen(row, value, SPEED | MEMORY)
    return found


def _search(values: Mapping[str, Any]) -> Search:
    larger = values.get("larger") or {}
    knee = values.get("knee") or {}
    options = requested(values["config"], SPEED | MEMORY)
    on_cpu, environment = options.get("device") == "cpu", values.get("environment") or {}
    model = environment.get("cpu" if on_cpu else "device_name")
    as_runs = [*values.get("timings", ()), *(() if values.get("exact") else values.get("probes", ()))]
    return Search(
        status=str(values["status"]),
        largest=_whole(values["largest"]),
        accumulate=_whole(values["config"].get("accumulate")) or 1,
        larger=_whole(larger.get("size")),
        outcome=str(larger.get("outcome", "")),
        limit_bytes=_whole(values.get("memory_limit_bytes")),
        limit_given=bool(values.get("memory_limit_given")),
        knee=_whole(knee.get("size")),
        speeds=speeds([_probe(entry) for entry in as_runs]),
        alone=not any(entry.get("shared_machine") for entry in as_runs),
        precision=printable(str(values["config"].get("precision"))),
        settings=settings(flat(options)),
        device_model=model if isinstance(model, str) else None,
        written_at=str(values.get("written_at", "")),
    )


def _probe(values: Mapping[str, Any]) -> Probe:
    """The parts of a probe that determine its speed."""
    size, accumulate = _whole(values["size"]), _whole(values.get("accumulate")) or 1
    if not size:
        raise ValueError("a probe without a size")
    seconds = tuple(float(second) for second in values.get("step_seconds", ()))
    if not all(0 < second < math.inf for second in seconds):
        raise ValueError("a step that took no time")
    return Probe(size=size, outcome=Outcome(values["outcome"]), accumulate=accumulate, step_seconds=seconds)


def _whole(value: Any) -> int | None:
    """A count, or None; anything else is a damaged file."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value
