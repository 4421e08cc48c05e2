"""Uses toy options in a copy of the package that declares them, and prints JSON: `python in_a_copy.py`.
`toy_speed` changes only the speed, `toy` the weights and the speed, `toy_bytes` the weights and the memory; older runs
had 1 of each.
"""

import io
import json
import sys
from pathlib import Path
from typing import Any

from plain_defaults import defaults
from rich.console import Console

from batchlab.cli.candidates import candidates
from batchlab.cli.config_page import page
from batchlab.cli.option_help import option_rows
from batchlab.config import from_dict, to_dict
from batchlab.errors import BadRequest
from batchlab.hydra_app import compose
from batchlab.recording.run_folder import write_record
from batchlab.records import Facts, RunRecord, RunStatus
from batchlab.report.compare.comparison import compare
from batchlab.report.tables.find_results import settings
from batchlab.report.tables.groups import groups
from batchlab.report.tables.study import read_study
from batchlab.sweep.identity import run_id
from batchlab.sweep.limits import Limits
from batchlab.sweep.points import Point
from batchlab.sweep.summary.table import show
from batchlab.tensorboard.by_batch_size import curves

TOYS = ("toy", "toy_bytes", "toy_speed")
PAIRS = {**dict.fromkeys((*TOYS, "seed"), (1, 2)), "eval_precision": ("fp32", "same")}


def values(**changes: Any) -> dict[str, Any]:
    return defaults(**{"device": "cpu", **dict.fromkeys(TOYS, 1), **changes})


def point(**changes: Any) -> Point:
    return Point(from_dict(values(**changes)).run)


def record(batch_size: int, **changes: Any) -> RunRecord:
    """A completed run with a speed of 1,000 examples/s times its batch size."""
    made = point(batch_size=batch_size, **changes)
    speed = 1000.0 * batch_size
    measured = {"final": {"speed/examples_per_second": speed, "val/loss": 0.1}, "lr_scaled": 0.02, "attempts": 1}
    return made.new_record(RunStatus.COMPLETED, "", **measured)


def skipped(**changes: Any) -> bool:
    """Whether batch size 256 with `changes` is skipped, after 128 without them ran out of memory."""
    limits = Limits()
    limits.learn(point(batch_size=128), point(batch_size=128).new_record(RunStatus.OOM, "", attempts=1))
    return limits.too_large(point(batch_size=256, **changes)) is not None


def study(name: str, *records: RunRecord) -> Any:
    for one in records:
        folder = Path(name) / one.run_id
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").touch()
        write_record(folder, one)
    return read_study(Path(name))


def built(grid: list[dict[str, Any]]) -> int:
    """The number of combinations of a grid that the preflight builds."""
    from batchlab import Task
    from batchlab.worker import preflight

    made: list[Any] = []

    def build(config: Any, other_seed: int | None) -> preflight.Parts:
        made.append(config)
        task = Task(train=(), val=(), loss=len)
        return preflight.Parts(1437, ("val/loss",), ("val/loss",), None, None, Facts(torch=""), task)

    preflight._build = build
    preflight.examine([from_dict(entry).run for entry in grid])
    return len(made)


def refusal(**changes: Any) -> str:
    try:
        from_dict(values(**changes))
    except BadRequest as error:
        return str(error)
    return ""


def table(records: list[RunRecord]) -> str:
    console = Console(file=io.StringIO(), width=200)
    show(records, Path("runs/toys"), console)
    return console.file.getvalue()


def compared(one: Any, other: Any) -> Any:
    found = compare((one, other), ((), ()))
    return {
        "pairs": {m.batch_size: m.pairs for m in found.measured if m.quantity == "examples/s"},
        "settings": {setting.name: [setting.first, setting.second] for setting in found.settings},
    }


of_three = [record(8), record(32), record(32, toy=2)]
one, other = study("one", *of_three), study("other", *of_three)
# Another value is not another run: a study has one run of each point, with the value that it was trained with.
at_two_speeds = [record(8), record(32), record(32, seed=1, toy_speed=2)]
fast, slow = study("fast", *at_two_speeds), study("slow", record(8), record(32), record(32, seed=1))
sys.stdout.write(
    json.dumps(
        {
            "composed": compose(["device=cpu", "toy=2"]).toy,
            "refusal": refusal(toy=0),
            "kept": to_dict(from_dict(values(toy=2)).run)["toy"],
            "ids": [run_id(point(**changes).config) for changes in ({}, *({toy: 2} for toy in TOYS))],
            "skipped": {toy: skipped(**{toy: 2}) for toy in TOYS},
            "groups": [sorted(group.name for group in groups(each)) for each in (one, fast)],
            "curves": [sorted(curves(each)) for each in (of_three, at_two_speeds)],
            "tables": [table(each) for each in (of_three, at_two_speeds)],
            "compared": [compared(one, other), compared(fast, slow)],
            "find": [settings(fast.requested.loc[each.run_id].to_dict()) for each in at_two_speeds[1:]],
            "built": {name: built([values(**{name: value}) for value in pair]) for name, pair in PAIRS.items()},
            "page": page(),
            "help": dict(option_rows("sweep"))["toy"],
            "completed": candidates("batchlab sweep toy"),
        }
    )
)
