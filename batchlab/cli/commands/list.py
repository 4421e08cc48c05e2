"""`batchlab list`: the studies on disk, or the points of one."""

import math
from collections import Counter
from pathlib import Path

from batchlab.cli.output import complain, say
from batchlab.cli.parser import Parser
from batchlab.cli.studies import HOW_TO_START, RUNS_DIR, Study, find_study, read_study
from batchlab.config.options import LISTED, RUN
from batchlab.printable import aligned, number, printable
from batchlab.recording.device_models import measured_on
from batchlab.recording.files import to_json
from batchlab.recording.run_folder import studies
from batchlab.records import RunRecord, RunStatus
from batchlab.records.quantities import TRAINING_SPEED, VALIDATION_LOSS

EXAMPLES = """\
examples:
  batchlab list                       every study, sorted by when it ended
  batchlab list digits-mlp            its points
  batchlab list runs/digits-mlp       the same, by path
  batchlab list digits-mlp --json     all that is recorded of them, as JSON"""

POINT_TITLES = [
    *(RUN[name].column for name in LISTED),
    "status",
    TRAINING_SPEED.column,
    VALIDATION_LOSS.column,
    "run",
]


def parser() -> Parser:
    """Its arguments."""
    made = Parser("list", "Shows the studies on disk, or the points of one.", EXAMPLES)
    made.add_argument("study", nargs="?", metavar="STUDY", help="a study's name or path; default: every study")
    made.add_argument("--runs-dir", default=RUNS_DIR, metavar="DIR", help="folder of the studies (%(default)s)")
    made.add_argument("--json", action="store_true", help="as JSON, for programs")
    return made


def main(arguments: list[str]) -> int:
    """Reads the disk; imports neither torch nor pandas."""
    given = parser().parse_args(arguments)
    runs_dir = Path(given.runs_dir)
    if given.study is None:
        found = [read_study(folder) for folder in studies(runs_dir)]
        say(
            to_json({"studies": [_summary(study) for study in found]}, indent=2)
            if given.json
            else _overview(found, runs_dir)
        )
    else:
        found = [read_study(find_study(given.study, runs_dir))]
        say(to_json(_in_full(found[0]), indent=2) if given.json else _points(found[0]))
    for sentence in (damaged for study in found for damaged in study.damaged):
        complain(f"batchlab: {printable(sentence)}")
    return 0


def _overview(found: list[Study], runs_dir: Path) -> str:
    if not found:
        return f"No runs yet in {printable(runs_dir)}/: {HOW_TO_START}."
    rows = [
        [printable(study.folder.name), str(len(study.records)), _counts(study.records), _when(study.last_ended)]
        for study in sorted(found, key=lambda study: (study.last_ended, study.folder.name))
    ]
    return "\n".join(aligned(["study", "points", "how they ended", "last ended"], rows, left=(0, 2, 3)))


def _points(study: Study) -> str:
    rows = [
        [
            *(_cell(record.config.get(name)) for name in LISTED),
            str(record.status),
            TRAINING_SPEED.written(record.final.get(TRAINING_SPEED.name)),
            VALIDATION_LOSS.written(record.final.get(VALIDATION_LOSS.name)),
            printable(record.run_id),
        ]
        for record in sorted(study.records, key=_order)
    ]
    return "\n".join(
        [
            f"{printable(study.folder)}: {len(rows)} {'point' if len(rows) == 1 else 'points'}, "
            f"{_counts(study.records)}; last ended {_when(study.last_ended)}",
            *([models] if (models := measured_on(_devices(study), "point")) else []),
            "",
            *aligned(POINT_TITLES, rows, left=(2, 4, -1)),
        ]
    )


def _devices(study: Study) -> dict[str, int]:
    return dict(Counter(r.device_model for r in study.records if r.device_model is not None and r.attempts))


def _cell(value: object) -> str:
    return number(value) if value is None or isinstance(value, float) else printable(value)


def _order(record: RunRecord) -> list[tuple[float, str]]:
    """Sorts numbers by value, before texts."""
    values = [*(record.config.get(name) for name in LISTED), record.run_id]
    return [(value, "") if isinstance(value, int | float) else (math.inf, str(value)) for value in values]


def _counts(records: tuple[RunRecord, ...]) -> str:
    """`9 completed, 2 oom`, in the order of `RunStatus`."""
    counts = Counter(record.status for record in records)
    return ", ".join(f"{counts[status]} {status}" for status in RunStatus if counts[status]) or "-"


def _when(ended_at: str) -> str:
    """`2026-11-23 23:56 UTC`, from ISO 8601."""
    return f"{ended_at[:10]} {ended_at[11:16]} UTC" if ended_at else "-"


def _summary(study: Study) -> dict[str, object]:
    return {
        "study": study.folder.name,
        "path": str(study.folder),
        "points": len(study.records),
        "statuses": Counter(str(record.status) for record in study.records),
        "last_ended": study.last_ended or None,
        "measured_on": _devices(study),
        "damaged": list(study.damaged),
    }


def _in_full(study: Study) -> dict[str, object]:
    return _summary(study) | {"records": [record.to_dict() for record in sorted(study.records, key=_order)]}
