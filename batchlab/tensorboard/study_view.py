"""`runs/<study>/tensorboard/`: TensorBoard's view of the whole study, rebuilt from its run folders."""

import contextlib
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from batchlab.config.options import FIRST, GROUPS
from batchlab.recording import disk
from batchlab.recording.flat_options import flat_options
from batchlab.recording.journal import read_journal
from batchlab.recording.run_folder import FIGURES, METRICS, TENSORBOARD, hold_study, read_records
from batchlab.records import RunRecord
from batchlab.records.declared import Quantities, declared_by
from batchlab.tensorboard import by_batch_size
from batchlab.tensorboard.event_file import EventFile, tag_of
from batchlab.tensorboard.hparams import experiment
from batchlab.tensorboard.layout import BY_STEP, layout


def rebuild(study_dir: Path, unreadable: list[str] | None = None) -> None:
    """Replaces the study's view: the columns of the HPARAMS table, the page of charts, the curves over batch size,
    and the figures of the last report.

    It is written to a temporary folder and moved; a study without runs keeps what it has. OSError if that fails.
    """
    if not study_dir.is_dir():
        return
    with hold_study(study_dir):
        records = read_records(study_dir, unreadable)
        if not records:
            return
        with _aside(study_dir) as aside:
            _write(aside, records, study_dir)
            _move(aside, study_dir / TENSORBOARD)


def _write(folder: Path, records: Sequence[RunRecord], study_dir: Path) -> None:
    now = time.time()
    rows = [flat_options(record) for record in records]
    quantities = declared_by(records)
    headlines = [quantity.name for quantity in quantities if quantity.headline]
    names = _metric_names(records, study_dir, quantities, headlines)
    curves = by_batch_size.curves(records)
    named = {name for row in rows for name in row}
    varied = sorted(name for name in named if len({repr(row.get(name)) for row in rows}) > 1)
    tags = {tag_of(name) for name in names} | {tag for curve in curves.values() for tag in curve}
    tags |= {tag_of(name + BY_STEP) for name in names if (chart := quantities[name].chart) and chart.over_steps}
    with EventFile(folder, started=now) as file:
        # A row covers all seeds of a configuration, and would show an arbitrary one of them.
        columns = [name for name in dict.fromkeys((*FIRST, *GROUPS, *varied)) if name != "seed" or name not in varied]
        # TensorBoard does not show a table without metrics.
        metrics = dict.fromkeys(tag_of(name) for name in (names or headlines[:1]))
        file.summary(experiment(rows, columns=columns, tags=metrics, now=now))
        file.summary(layout(tags, quantities))
        for picture in sorted((study_dir / FIGURES).glob("*.png")):
            with contextlib.suppress(ValueError, OSError):  # a file from elsewhere: those of the report are complete
                file.image(tag_of(f"{FIGURES}/{picture.stem}"), picture.read_bytes())
    for name, curve in curves.items():
        with EventFile(folder / "by_batch_size" / name, started=now) as file:
            for tag, points in sorted(curve.items()):
                for batch_size, value in points.items():
                    file.scalar(tag, value, step=batch_size, wall_time=now)


def _metric_names(
    records: Sequence[RunRecord], study_dir: Path, quantities: Quantities, headlines: Sequence[str]
) -> list[str]:
    """All measurements of the study's runs: headlines first, since the table shows five, then by group."""
    found: set[str] = set()
    for record in records:
        # A run that is still running, or was killed, has no final values.
        journal = () if record.final else read_journal(study_dir / record.run_id / METRICS)
        found |= {*record.final, *(measurement.name for measurement in journal)}
    first = [name for name in headlines if name in found]
    place = {group: i for i, group in enumerate(dict.fromkeys(quantity.group for quantity in quantities))}
    last = len(place)
    rest = sorted(found.difference(first), key=lambda name: (place.get(quantities[name].group, last), name))
    return first + rest


@contextlib.contextmanager
def _aside(study_dir: Path) -> Iterator[Path]:
    """A temporary folder next to the view; folders left by killed rebuilds are removed with it."""
    aside = study_dir / f".{TENSORBOARD}-{secrets.token_hex(4)}"
    disk.make_folder(aside)
    try:
        yield aside
    finally:
        for left in study_dir.glob(f".{TENSORBOARD}-*"):
            disk.remove_tree(left)


def _move(new: Path, place: Path) -> None:
    """Moves the folder; the old one is moved away first, since it cannot be overwritten, and removed by `_aside`."""
    if place.exists():
        disk.move(place, new.with_name(f"{new.name}-old"))
    disk.move(new, place)
