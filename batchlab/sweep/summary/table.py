"""The table at the end of a sweep: what each batch size cost and what it reached."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from batchlab.config import key
from batchlab.config.option_row import SPEED
from batchlab.printable import NOTHING, aligned, number, printable
from batchlab.records import RunRecord, RunStatus
from batchlab.records.quantities import PEAKS, TRAINING_SPEED, VALIDATION_LOSS
from batchlab.sweep.summary.precision_table import against_fp32
from batchlab.sweep.summary.table_columns import Setting, arranged
from batchlab.sweep.summary.table_notes import next_step, notes
from batchlab.sweep.summary.table_quantities import in_tables, measured

if TYPE_CHECKING:
    from rich.console import Console

ALWAYS = (VALIDATION_LOSS.name, TRAINING_SPEED.name, PEAKS[0].name)
CUT_OFF = (RunStatus.FAILED, RunStatus.OOM, RunStatus.KILLED)  # their few steps give no comparable speed
STYLES = {RunStatus.COMPLETED: "green", RunStatus.OOM: "yellow", RunStatus.DIVERGED: "yellow"}


@dataclass(frozen=True)
class Column:
    """One column: its title, on as many lines as it has, and a cell for each record."""

    title: str
    cells: list[str]
    name: str = ""  # set if optional: a narrow terminal shows `name=cell` below the row
    always: bool = False  # shown even if every cell is empty


def show(records: Sequence[RunRecord], study_dir: Path, console: "Console | None" = None) -> None:
    """Prints the comparison of `records`, notes about it, and the next command.

    In a terminal that is too narrow, the settings of a point are shown below its row; if the output is not a
    terminal, nothing is wrapped or cut.
    """
    from rich.text import Text

    from batchlab.sweep.summary.progress import UnreadConsole

    console = console or UnreadConsole(file=sys.stdout)
    ordered, settings = arranged(records)
    if not ordered:
        console.print(Text(f"No points in {study_dir}."), soft_wrap=True)
        return
    edge = console.width if console.is_terminal else None
    columns = _columns(ordered, settings)
    lines, below = _fit(columns, edge)
    for line in lines[: -len(ordered)]:
        console.print(Text(line, style="bold"), soft_wrap=True)
    for record, line, more in zip(ordered, lines[-len(ordered) :], below, strict=True):
        row = Text(line)
        row.stylize(STYLES.get(record.status, "red"), len(line) - len(record.status))
        console.print(row, soft_wrap=True)
        if more:
            console.print(Text(more, style="dim"), soft_wrap=edge is None)
    console.print()
    comparison = against_fp32(ordered, settings)
    for line in [*comparison, ""] if comparison else []:
        console.print(Text(line), soft_wrap=True)
    for note in notes(ordered, settings, study_dir):
        console.print(Text(note), soft_wrap=edge is None)
    console.print(Text(next_step(study_dir), style="bold"), soft_wrap=True)


def _columns(records: Sequence[RunRecord], settings: Sequence[Setting]) -> list[Column]:
    """The columns of `records`, in reading order: what was requested, what it cost, what it reached."""
    columns = [
        Column("batch\nsize", [str(record.batch_size) for record in records], always=True),
        *(Column(setting.name.replace(".", ".\n"), list(setting.cells), setting.name) for setting in settings),
        Column("peak\nlr", [number(record.lr_scaled) for record in records], always=True),
        Column("steps", [f"{record.steps:,}" for record in records]),
        *_measured(records),
        *_to_the_target([record.target or {} for record in records]),
        Column("train\nseconds", [number(record.train_seconds, ".2f") for record in records]),
        Column("status", [str(record.status) for record in records]),
    ]
    return [column for column in columns if column.always or any(cell != NOTHING for cell in column.cells)]


def _measured(records: Sequence[RunRecord]) -> Iterator[Column]:
    for quantity in in_tables(records):
        title = "\n".join(map(printable, quantity.column.split("\n")))
        cells = [quantity.written(measured(record, quantity)) for record in records]
        yield Column(title, cells, always=quantity.name in ALWAYS)
        if quantity == TRAINING_SPEED:
            yield Column("relative\nspeed", _relative(records))


def _to_the_target(targets: Sequence[Mapping[str, Any]]) -> Iterator[Column]:
    examples = [number(_reached(target, "examples"), ",.0f") for target in targets]
    seconds = [number(_reached(target, "train_seconds"), ".2f") for target in targets]
    yield Column("target\nexamples", examples, name="target_examples", always=any(targets))
    yield Column("target\nseconds", seconds, name="target_seconds", always=any(targets))


def _fit(columns: Sequence[Column], edge: int | None) -> tuple[list[str], list[str]]:
    """The table's lines, and for each row the text below it; `edge` is the terminal's width, if any."""

    def lines(shown: Sequence[Column], gap: int) -> list[str]:
        return aligned([c.title for c in shown], list(zip(*(c.cells for c in shown), strict=True)), gap=gap)

    nothing = [""] * len(columns[0].cells)
    moved = [column for column in columns if column.name]
    below = [
        "    " + " ".join(f"{c.name}={cell}" for c, cell in zip(moved, cells, strict=True))
        for cells in zip(*(c.cells for c in moved), strict=True)
    ]
    always = [column for column in columns if not column.name]
    wide = lines(columns, 2), nothing
    if edge is None:
        return wide
    narrow = lines(always, 1), below or nothing
    tries = [wide, (lines(columns, 1), nothing), (lines(always, 2), below or nothing)]
    return next((fitting for fitting in tries if max(map(len, fitting[0])) <= edge), narrow)


def _relative(records: Sequence[RunRecord]) -> list[str]:
    """Each speed divided by the mean speed of the smallest batch size of its kind, if it has several sizes."""
    no_speed = [record.shared_machine or record.status in CUT_OFF for record in records]
    speeds = [None if out else measured(r, TRAINING_SPEED) for r, out in zip(records, no_speed, strict=True)]
    kinds: dict[str, dict[int, list[float]]] = {}
    for record, speed in zip(records, speeds, strict=True):
        if speed is not None:
            kinds.setdefault(_kind(record), {}).setdefault(record.batch_size, []).append(speed)
    smallest = {kind: fmean(sizes[min(sizes)]) for kind, sizes in kinds.items() if len(sizes) > 1}
    return [
        NOTHING if speed is None or _kind(record) not in smallest else f"{speed / smallest[_kind(record)]:.2f}x"
        for record, speed in zip(records, speeds, strict=True)
    ]


def _kind(record: RunRecord) -> str:
    """What affects the speed except the batch size: points with other models, say, are not compared."""
    return repr((record.device_model, key(record.config, SPEED, without=("batch_size",))))


def _reached(target: Mapping[str, Any], field: str) -> float | None:
    return target.get(field) if target.get("reached") else None
