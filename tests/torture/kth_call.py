"""Every system call of a run fails once, in every way: what is made of it afterwards must be what it always was."""

import contextlib
import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from batchlab.errors import StorageError
from batchlab.recording.results import write_results
from batchlab.recording.run_folder import read_record
from batchlab.tensorboard.study_view import rebuild
from batchlab.worker import run_log
from torture.comparison import came_to, curve, differences, left_aside, table
from torture.faulty import KINDS, Call, FaultyOs, Kind, through
from torture.forks import WENT_WRONG, in_a_child
from torture.tiny import folder_of, tiny, train, warmed_up


@dataclass(frozen=True)
class Expected:
    """What an unfaulted run comes to."""

    run: dict[str, Any]
    table: list[dict[str, str]]
    curve: list[tuple[int, float]]
    calls: list[Call]


def whole(runs_dir: Path, door: FaultyOs | None = None) -> dict[str, Any]:
    """A run and what its study makes of it, in this process; how it ended."""
    config = tiny(runs_dir)
    folder = folder_of(config)
    door = door or FaultyOs()
    with through(door):
        try:
            record = train(config)
            rebuild(folder.parent)
            write_results(folder.parent)
        except StorageError as error:
            return {"storage": str(error), "named": str(runs_dir.parent) in str(error), **_counted(door)}
    return {"storage": None, "status": str(record.status), "reason": record.reason, **_counted(door)}


def expected(scratch: Path) -> Expected:
    """By a run that nothing happens to."""
    place = Path(tempfile.mkdtemp(dir=scratch))
    ending = in_a_child(lambda: whole(place))
    assert ending.code == 0, ending.reported
    assert ending.reported["status"] == "completed", ending.reported
    folder = folder_of(tiny(place))
    found = Expected(
        came_to(folder),
        table(folder.parent),
        curve(folder, "val/loss"),
        [Call(*call) for call in ending.reported["calls"]],
    )
    shutil.rmtree(place)
    return found


def cases(calls: Sequence[Call], kinds: Sequence[Kind] = KINDS) -> list[tuple[int, Kind]]:
    """Every call, in every way that fits it."""
    return [
        (at, kind) for kind in kinds for at, call in enumerate(calls, 1) if call.name == "write" or not kind.writes_only
    ]


def survives(
    at: int, kind: Kind, reference: Expected, scratch: Path, *, then: tuple[int, Kind] | None = None
) -> str | None:
    """What is wrong after the fault, a second one while recovering (`then`), and a run without; None: nothing."""
    place = Path(tempfile.mkdtemp(dir=scratch))
    try:
        for fault in filter(None, ((at, kind), then)):
            if (wrong := _stands(place, *fault)) is not None:
                return f"call {at} {kind.name}, then {then}: {wrong}"
        wrong = recovers(place, reference)
        return f"call {at} ({reference.calls[at - 1]}) {kind.name}, then {then}: {wrong}" if wrong else None
    finally:
        shutil.rmtree(place)


def _stands(place: Path, at: int, kind: Kind) -> str | None:
    """The run that meets the fault: it ends as it must, and has recorded nothing wrong.

    Its stderr, a worker's log, lies on the same disk, and takes nothing either.
    """

    def run() -> dict[str, Any]:
        os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
        return whole(place, FaultyOs(at, kind))

    ending = in_a_child(run)
    if ending.code == WENT_WRONG:
        return f"a traceback: {ending.reported}"
    if kind.code is None:
        # The second of two faults may lie behind the last call.
        return None if ending.killed or ending.code == 0 else f"ended with {ending.code}"
    if ending.code != 0:
        return f"ended with {ending.code}"
    reported = ending.reported
    refused = [Call(*call) for call in reported["refused"]]
    if reported["storage"] is None:
        if reported["status"] != "completed":
            return f"recorded as {reported['status']}: {reported['reason']}"
        if not_told := [call for call in refused if _must_be_told(call)]:
            return f"nothing was reported of {not_told}"
    elif not reported["named"]:
        return f"the message names no path: {reported['storage']}"
    elif all(_is_a_view(call) for call in refused):
        return f"a view stopped the run: {reported['storage']}"
    return None


def _is_a_view(call: Call) -> bool:
    """TensorBoard's events of a run: training continues without them."""
    return "tfevents" in call.path and "tensorboard" not in call.path


def _must_be_told(call: Call) -> bool:
    """A refused call that nobody may swallow: what it was to keep is not kept.

    Folders are not among them: the run's is also requested by its view, and the next call reports a missing one.
    """
    return call.name in ("write", "fsync", "replace", "open") and not _is_a_view(call)


def recovers(place: Path, reference: Expected) -> str | None:
    """The same command again, without a fault."""
    folder = folder_of(tiny(place))
    before = read_record(folder)
    kept = (folder / "record.json").read_bytes() if before is not None and before.status.is_final else None
    ending = in_a_child(lambda: whole(place))
    if ending.code != 0 or ending.reported["storage"] is not None or ending.reported["status"] != "completed":
        return f"it cannot be resumed: {ending}"
    if kept is not None and (folder / "record.json").read_bytes() != kept:
        return "it had its final result, and was run again"
    wrong = differences(came_to(folder), reference.run)
    wrong += differences(table(folder.parent), reference.table, "table")
    if kept is None:  # a view that stopped halfway stays so, once the run has its answer
        wrong += differences(curve(folder, "val/loss"), reference.curve, "curve")
    else:
        curve(folder, "val/loss")
    curve(folder.parent / "tensorboard", "val/loss")
    wrong += [f"left: {name}" for name in left_aside(place)]
    return "; ".join(wrong[:5]) or None


def _counted(door: FaultyOs) -> dict[str, Any]:
    return {
        "calls": [(call.name, call.path) for call in door.calls],
        "refused": [(call.name, call.path) for call in door.refused],
    }


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """What a run finds out about the machine and the code, once for all runs: it takes half of a tiny one's time."""
    warmed_up()
    about = run_log.environment({})
    with (
        mock.patch.object(run_log, "environment", lambda facts: about | dict(facts)),
        mock.patch.object(run_log, "code_files", return_value={}),
    ):
        yield


def sample(scale: float, reference: Expected, seed: int) -> Iterator[tuple[int, Kind, tuple[int, Kind] | None]]:
    """A share of all single faults, spread evenly over them, and a third as many double ones."""
    draw = random.Random(seed)
    every = cases(reference.calls)
    draw.shuffle(every)
    chosen = every[: max(1, round(len(every) * min(1.0, scale)))]
    for at, kind in chosen:
        yield at, kind, None
    for at, kind in draw.choices(every, k=max(1, len(chosen) // 3)):
        yield at, kind, draw.choice(every)
