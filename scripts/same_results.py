"""Compares the results of two run folders, for scripts/same_science."""

import fnmatch
import itertools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from small_runs import Configuration

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from batchlab.config.moved_targets import MOVED


class DifferenceError(Exception):
    """Two checkouts differ; the message gives the first difference, and both values."""


def same(where: str, old: Any, new: Any) -> None:
    """Raises DifferenceError unless both are equal; for two mappings it shows only the entries that differ."""
    if isinstance(old, dict) and isinstance(new, dict) and old.get("name") == new.get("name"):
        where = f"{where} ({old.get('name')}, step {old.get('step')})"
        differing = [key for key in old if old[key] != new.get(key)]
        old, new = ({key: each.get(key) for key in differing} for each in (old, new))
    if old != new:
        raise DifferenceError(f"{where}: {old!r} with the old checkout, {new!r} with this one")


# Options of a sweep and of a study: older checkouts stored them in the config of runs and searches.
NOT_OF_A_RUN = ("jobs", "skip_larger", "retry", "force", "accept_changed", "report", "dry_run", "published")
# In a record: times, memory, speeds, versions, environment, fingerprints of code, and what depends on the load.
NOT_COMPARED = (
    *("started_at", "ended_at", "wall_seconds", "train_seconds", "target.train_seconds", "shared_machine"),
    *("environment", "environment.*", "code_fingerprint", "schema_version", "resumed_at", "config.runs_dir"),
    *(f"config.{name}" for name in NOT_OF_A_RUN),
    *("final.speed/*", "final.memory/*", "best.speed/*", "best.memory/*"),
)


def is_compared(key: str) -> bool:
    return not any(fnmatch.fnmatchcase(key, pattern) for pattern in NOT_COMPARED)


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flattens nested mappings to dotted keys; an empty mapping is a value."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    return {k: v for key, inner in value.items() for k, v in flat(inner, f"{prefix}.{key}" if prefix else key).items()}


def digits(path: Path) -> Any:
    """JSON with its numbers as strings."""
    return json.loads(path.read_text(), parse_float=str, parse_int=str, parse_constant=str)


def same_records(where: str, old: Path, new: Path) -> set[str]:
    """Compares two records; returns the keys that the new one adds."""
    before, after = (
        {k: MOVED.get(str(v), v) for k, v in flat(digits(folder / "record.json")).items() if is_compared(k)}
        for folder in (old, new)
    )
    for key in before:
        same(f"{where}/record.json: {key}", before[key], after.get(key, "nothing"))
    return after.keys() - before.keys()


def measurements(path: Path) -> Iterator[dict[str, str]]:
    for line in path.read_text().splitlines():
        measurement = json.loads(line, parse_float=str, parse_int=str, parse_constant=str)
        if not measurement["name"].startswith(("speed/", "memory/")):
            yield {k: measurement[k] for k in ("name", "value", "step", "examples", "low", "high", "n")}


def same_measurements(where: str, old: Path, new: Path) -> int:
    """Compares two journals, in order; returns the number of measurements."""
    count = 0
    for number, (a, b) in enumerate(itertools.zip_longest(measurements(old), measurements(new))):
        same(f"{where}/{old.name}, measurement {number}", a, b)
        count += 1
    return count


def same_runs(configuration: Configuration, old: Path, new: Path) -> tuple[str, set[str]]:
    """Compares the runs of one configuration; returns what was compared, and the keys that the new records add."""
    folders = [{path.parent.name: path.parent for path in sorted(w.glob("runs/*/*/record.json"))} for w in (old, new)]
    same("run ids", sorted(folders[0]), sorted(folders[1]))
    added: set[str] = set()
    count = 0
    for run_id, folder in folders[0].items():
        record = json.loads((folder / "record.json").read_text())
        if record["status"] != "completed":
            raise DifferenceError(
                f"{run_id} does not complete with the old checkout: {record['status']}: {record['reason']}"
            )
        for each in (folder, folders[1][run_id]):
            if configuration.resumed and not json.loads((each / "record.json").read_text())["resumed_at"]:
                raise DifferenceError(f"{run_id} was not resumed: {each}")
        count += same_measurements(run_id, folder / "metrics.jsonl", folders[1][run_id] / "metrics.jsonl")
        added |= same_records(run_id, folder, folders[1][run_id])
    return f"{len(folders[0])} runs, {count} measurements", added


def same_structure(where: str, old: Any, new: Any) -> None:
    """Compares two JSON values by their keys and types; null matches anything."""
    if old is None or new is None:
        return
    same(f"type of {where}", type_of(old), type_of(new))
    if isinstance(old, dict):
        for key in old:
            if key not in new:
                raise DifferenceError(f"{where} has no {key} any more")
            same_structure(f"{where}.{key}", old[key], new[key])
    elif isinstance(old, list) and old and new:
        same_structure(f"{where}[0]", old[0], new[0])


def type_of(value: Any) -> str:
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def same_find(old: Path, new: Path) -> tuple[str, set[str]]:
    """Compares the results of find: the same structure, and a largest size within 8%."""
    kept = [json.loads(path.read_text()) for work in (old, new) for path in sorted(work.glob("runs/*/find/*.json"))]
    if len(kept) != 2:
        raise DifferenceError(f"find stored {len(kept)} results, but two were expected")
    for each in kept:
        each["config"] = {name: value for name, value in each["config"].items() if name not in NOT_OF_A_RUN}
    same_structure("find", *({k: v for k, v in each.items() if k != "environment"} for each in kept))
    sizes = [each["largest"] for each in kept]
    if abs(sizes[0] - sizes[1]) > max(1, 0.08 * sizes[0]):  # the growth of the process is known to 1 or 2 MiB of 32
        raise DifferenceError(f"find: largest size {sizes[0]} with the old checkout, {sizes[1]} with this one")
    return f"largest sizes {sizes[0]} and {sizes[1]}", {f"find.{key}" for key in kept[1].keys() - kept[0].keys()}


SECONDS = re.compile(r"\d[\d,.]*(e-?\d+)?(?= ?(%|s|ms|us|seconds|milliseconds|microseconds|minutes|examples/s)\b)")


def same_text(old: Path, new: Path) -> tuple[str, set[str]]:
    """Compares printed output, without seconds and speeds."""
    texts = [SECONDS.sub("#", (work / "0.out").read_text()).splitlines() for work in (old, new)]
    for number, (a, b) in enumerate(itertools.zip_longest(*texts, fillvalue="nothing"), start=1):
        same(f"line {number} of its output", a, b)
    return f"{len(texts[0])} lines of output", set()


def compare(configuration: Configuration, old: Path, new: Path) -> tuple[str, set[str]]:
    """Returns what was compared, and what this checkout adds; raises DifferenceError."""
    for number, (arguments, code) in enumerate(zip(configuration.commands, configuration.codes, strict=True)):
        for checkout, work in (("the old checkout", old), ("this one", new)):
            if not (work / f"{number}.done").exists():
                raise DifferenceError(f"`batchlab {' '.join(arguments)}` did not end with {checkout}")
            ended, _ = json.loads((work / f"{number}.done").read_text())
            if ended != code:
                text = (work / f"{number}.err").read_text() + (work / f"{number}.out").read_text()
                raise DifferenceError(
                    f"`batchlab {' '.join(arguments)}` ends with {ended} with {checkout}, not {code}:\n{text}"
                )
    match configuration.name:
        case "find":
            return same_find(old, new)
        case "verify" | "check":
            return same_text(old, new)
        case _:
            return same_runs(configuration, old, new)
