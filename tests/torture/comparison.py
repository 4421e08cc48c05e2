"""What a run came to, without what no two runs share: its times, its speed and its memory."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batchlab.recording.journal import read_journal

VARIES = ("speed/", "memory/")
KEPT = ("status", "steps", "examples", "best", "weights_fingerprint", "final", "target", "steps_skipped", "epochs")
VARIES_IN_A_TABLE = ("wall_seconds", "train_seconds", "attempts", "resumed_at", "started_at", "ended_at")
SECONDS = "train_seconds"


def measured(folder: Path) -> list[tuple[Any, ...]]:
    """The journal's lines, times aside, bit by bit: a nan equals itself."""
    broken: list[str] = []
    lines = read_journal(folder / "metrics.jsonl", broken)
    if broken:
        raise AssertionError(f"broken lines: {broken}")
    return [
        (m.name, m.value.hex(), m.step, m.examples, m.low, m.high, m.n) for m in lines if not m.name.startswith(VARIES)
    ]


def sequence(folder: Path) -> list[int]:
    """The numbers of the journal's lines."""
    return [json.loads(line)["seq"] for line in (folder / "metrics.jsonl").read_bytes().splitlines()]


def came_to(folder: Path) -> dict[str, Any]:
    """What must be equal in two runs of one configuration."""
    record = json.loads((folder / "record.json").read_bytes())
    kept = {name: record[name] for name in KEPT}
    kept["final"] = {name: value for name, value in record["final"].items() if not name.startswith(VARIES)}
    if kept["target"] is not None:
        kept["target"] = {name: value for name, value in record["target"].items() if name != SECONDS}
    lines = sequence(folder)
    return {"record": kept, "metrics": measured(folder), "numbered": lines == list(range(len(lines)))}


def table(study: Path) -> list[dict[str, str]]:
    """The rows of `results.csv`, times aside."""
    with (study / "results.csv").open(newline="") as file:
        return [
            {
                name: value
                for name, value in row.items()
                if name not in VARIES_IN_A_TABLE
                and not name.startswith(tuple(f"final.{varies}" for varies in VARIES))
                and not name.endswith(SECONDS)
            }
            for row in csv.DictReader(file)
        ]


def left_aside(root: Path) -> list[str]:
    """What is nobody's: files half written, folders on their way."""
    return sorted(
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.name.endswith(".tmp") or path.name.startswith((".tensorboard-", ".probe"))
    )


def events(folder: Path) -> Iterator[Any]:
    """Every event below `folder`, read as TensorBoard reads them; it raises where a file cannot be read."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    for path in sorted(folder.rglob("events.out.tfevents.*")):
        yield from EventFileLoader(str(path)).Load()


def curve(folder: Path, tag: str) -> list[tuple[int, float]]:
    """What TensorBoard would draw."""
    from tensorboard.util import tensor_util

    return [
        (event.step, float(tensor_util.make_ndarray(value.tensor)))
        for event in events(folder)
        for value in event.summary.value
        if value.tag == tag
    ]


def differences(found: Any, expected: Any, name: str = "") -> list[str]:
    """Where two plain values differ, in words."""
    if isinstance(found, dict) and isinstance(expected, dict):
        return [
            text
            for key in sorted({*found, *expected}, key=str)
            for text in differences(found.get(key), expected.get(key), f"{name}.{key}")
        ]
    if isinstance(found, list) and isinstance(expected, list):
        if len(found) != len(expected):
            return [f"{name}: {len(found)} entries, not {len(expected)}"]
        return [
            text
            for i, (one, other) in enumerate(zip(found, expected, strict=True))
            for text in differences(one, other, f"{name}[{i}]")
        ]
    return (
        [] if found == expected or (found != found and expected != expected) else [f"{name}: {found}, not {expected}"]
    )
