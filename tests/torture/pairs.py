"""Two sweeps over one study, started together: they share the work."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torture.kills import different
from torture.sweeps import run_folders, sweep


def together(folder: Path, expected: dict[str, Any], *grid: str) -> Iterator[str | None]:
    """For each of the two, and for what they left: None where nothing is wrong."""
    folder.mkdir()
    with sweep(folder, *grid) as one, sweep(folder, *grid) as other:
        for running in (one, other):
            code = running.end()
            rows = sum(line.lstrip().startswith(("16 ", "32 ")) for line in running.lines)
            complete = code == 0 and rows >= len(expected)
            yield None if complete else f"exit code {code}, {rows} rows of {len(expected)}: {running.output}"
    study = folder / "runs" / "study"
    wrong = different(study, expected)
    for run in run_folders(study):
        record = json.loads((run / "record.json").read_text())
        if record["attempts"] != 1 or record["resumed_at"]:
            wrong.append(f"{run.name} was run {record['attempts']} times")
        if (log := (run / "worker.log").read_text()).strip():
            wrong.append(f"{run.name}'s log says {log!r}")
    yield "; ".join(wrong[:4]) or None
