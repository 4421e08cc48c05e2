"""Bugs planted one at a time: each must make a check fail, or the check checks nothing."""

import contextlib
import random
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from batchlab.recording import checkpoint_files, disk, journal
from batchlab.training import checkpoint, session
from batchlab.training.hooks import hook_states
from batchlab.worker import run_log
from torture import atomic, flips, kth_call, power_loss, resuming, tasks
from torture.comparison import came_to
from torture.faulty import KINDS, Kind
from torture.tiny import ADAMW, folder_of, tiny, train

Check = Callable[[Path], list[str]]
Mutant = contextlib.AbstractContextManager[Any]
HARD: dict[str, Any] = {"model": {"norm": True, "dropout": 0.3, "hidden_buffer": True}, "optimizer": ADAMW}
OVERFLOWS: dict[str, Any] = {"precision": "fp16", "lr": 0.2, "model": {"gain": 300.0}}
AT_ITS_END: dict[str, Any] = {"checkpoint_seconds": 1e-9, "log_every": 15, "eval_every": 9, "checkpoint_every": None}
KILLED, KILLED_AFTER, SHORT = KINDS[0], KINDS[1], KINDS[-1]
EACCES = next(kind for kind in KINDS if kind.name == "EACCES once")


# The checks: each hands back what it finds wrong. Without a mutant that is nothing.


def resumes(config: Mapping[str, Any], *stops: int) -> Check:
    def check(scratch: Path) -> list[str]:
        expected, _ = resuming.undisturbed(dict(config), scratch)
        found = [resuming.exact(dict(config), (stop,), expected, scratch) for stop in stops or (5,)]
        return [text for text in found if text]

    return check


def goes_on_after_each_checkpoint(scratch: Path) -> list[str]:
    return resuming.exact_after_each_checkpoint(AT_ITS_END, scratch)[1]


def survives_calls(kind: Kind, name: str, path: str = "", *, every: int = 1) -> Check:
    """Every system call of that name (and every `every`-th of them), about a path that holds `path`."""

    def check(scratch: Path) -> list[str]:
        reference = kth_call.expected(scratch)
        at = [i for i, c in enumerate(reference.calls, 1) if c.name == name and path in c.path][::every]
        found = [kth_call.survives(i, kind, reference, scratch) for i in at]
        return [text for text in found if text]

    return check


def survives_power_loss(scratch: Path) -> list[str]:
    run, reference = power_loss.recorded(scratch), kth_call.expected(scratch)
    found = [power_loss.survives(*case, run, reference, scratch) for case in power_loss.sample(0.15, run, 0)]
    return [text for text in found if text]


def notices_flips(scratch: Path) -> list[str]:
    return [text for text in flips.bit_flips(flips.stopped(scratch), 50, 0) if text]


def notices_a_changed_journal(scratch: Path) -> list[str]:
    run, config = flips.stopped(scratch), tiny(Path(tempfile.mkdtemp(dir=scratch)))
    train(config)
    path = folder_of(tiny(run.place)) / "metrics.jsonl"
    changed = path.read_bytes().replace(b'"value": 1.', b'"value": 2.', 1)
    found = flips.goes_on(run, scratch, path.name, changed, came_to(folder_of(config)))
    return [found] if found else []


def replaces_atomically(scratch: Path) -> list[str]:
    return [text for text in atomic.faults(scratch) if text]


# The mutants.


def forgetting(change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> Mutant:
    """A checkpoint that comes back changed."""
    restore = checkpoint.restore

    def restored(content: Mapping[str, Any], state: Any, instruments: Any) -> None:
        fresh = {
            "optimizer": state.optimizer.state_dict(),
            "torch": torch.get_rng_state(),
            "scaler": state.precision.scaler.state_dict() if state.precision.scaler else None,
            "instruments": {name: plug.state_dict() for name, plug in instruments.items()},
            "meter": state.meter.state_dict(),
            "hooks": hook_states(state.task),
            "python": random.getstate(),
        }
        restore({**content, **change({**content, "fresh": fresh})}, state, instruments)

    return mock.patch.object(checkpoint, "restore", restored)


class FromTheStart(session.Batches):
    def __init__(self, data: Any, *, position: int, **more: Any) -> None:
        super().__init__(data, **more)


class NeverCut(journal.Journal):
    def truncate(self, offset: int, digest: str | None = None) -> None:
        """Leaves what came after the checkpoint."""
        if offset == 0:
            super().truncate(0)


class Unchecked(journal.Journal):
    def truncate(self, offset: int, digest: str | None = None) -> None:
        super().truncate(offset)


def remove_then_move(source: Path, target: Path) -> None:
    disk.remove(target)
    disk.os.replace(source, target)  # type: ignore[attr-defined]


def move_or_not(source: Path, target: Path) -> None:
    with contextlib.suppress(PermissionError):
        disk.os.replace(source, target)  # type: ignore[attr-defined]


def write_in_place(path: Path, content: str | bytes) -> None:
    descriptor = disk.os.open(path, disk.os.O_WRONLY | disk.os.O_CREAT | disk.os.O_TRUNC)  # type: ignore[attr-defined]
    disk.append(descriptor, content.encode() if isinstance(content, str) else content, path)
    disk.os.close(descriptor)  # type: ignore[attr-defined]


def append_what_fits(descriptor: int, data: bytes, path: Path) -> None:
    disk.os.write(descriptor, data)  # type: ignore[attr-defined]


def anything(path: Path) -> bytes:
    return path.read_bytes()


def saving_at_the_end(every: int | None, before: int, now: int) -> bool:
    return True


def nothing(*_: Any, **__: Any) -> None:
    """Does not do it."""


MUTANTS: list[tuple[str, Callable[[], Mutant], Check]] = [
    (
        "no optimizer in the checkpoint",
        lambda: forgetting(lambda c: {"optimizer": c["fresh"]["optimizer"]}),
        resumes(HARD),
    ),
    (
        "no random streams in the checkpoint",
        lambda: forgetting(lambda c: {"random": {**c["random"], "torch": c["fresh"]["torch"]}}),
        resumes(HARD),
    ),
    (
        "no loss scale in the checkpoint",
        lambda: forgetting(lambda c: {"scaler": c["fresh"]["scaler"]}),
        resumes(OVERFLOWS, 7),
    ),
    (
        "no instruments in the checkpoint",
        lambda: forgetting(lambda c: {"instruments": c["fresh"]["instruments"]}),
        resumes(HARD),
    ),
    ("no clock in the checkpoint", lambda: forgetting(lambda c: {"meter": c["fresh"]["meter"]}), resumes(HARD, 9)),
    ("no step in the checkpoint", lambda: forgetting(lambda c: {"step": 0}), resumes(HARD)),
    ("no hidden buffers in the checkpoint", lambda: forgetting(lambda c: {"buffers": {}}), resumes(HARD)),
    (
        "no attributes in the checkpoint",
        lambda: forgetting(lambda c: {"attributes": {}}),
        resumes(tasks.KINDS["attributes"]),
    ),
    (
        "no modes in the checkpoint",
        lambda: forgetting(lambda c: {"evaluating": [], "frozen": []}),
        resumes(tasks.KINDS["frozen during training"]),
    ),
    (
        "no hooks in the checkpoint",
        lambda: forgetting(lambda c: {"hooks": c["fresh"]["hooks"]}),
        resumes(tasks.KINDS["average of the weights"]),
    ),
    (
        "no Python numbers in the checkpoint",
        lambda: forgetting(lambda c: {"random": {**c["random"], "python": c["fresh"]["python"]}}),
        resumes(tasks.KINDS["random numbers"]),
    ),
    ("the data begins anew", lambda: mock.patch.object(session, "Batches", FromTheStart), resumes(HARD)),
    (
        "a checkpoint at the end of the run",
        lambda: mock.patch.object(checkpoint, "_crossed", saving_at_the_end),
        goes_on_after_each_checkpoint,
    ),
    (
        "the journal is not cut back",
        lambda: mock.patch.object(run_log, "Journal", NeverCut),
        survives_calls(KILLED, "write", "metrics.jsonl", every=2),
    ),
    (
        "the journal's digest is not looked at",
        lambda: mock.patch.object(run_log, "Journal", Unchecked),
        notices_a_changed_journal,
    ),
    ("the hash is not looked at", lambda: mock.patch.object(checkpoint_files, "_content", anything), notices_flips),
    ("one checkpoint is kept", lambda: mock.patch.object(checkpoint_files, "KEPT", 1), notices_flips),
    ("removed, then moved", lambda: mock.patch.object(disk, "move", remove_then_move), replaces_atomically),
    ("written in place", lambda: mock.patch.object(disk, "write_atomically", write_in_place), replaces_atomically),
    (
        "a refused move is swallowed",
        lambda: mock.patch.object(disk, "move", move_or_not),
        survives_calls(EACCES, "replace", "record"),
    ),
    (
        "a short write is taken for a whole one",
        lambda: mock.patch.object(disk, "append", append_what_fits),
        survives_calls(SHORT, "write", "study", every=6),
    ),
    ("files are not synced", lambda: mock.patch.object(disk, "sync", nothing), survives_power_loss),
    ("folders are not synced", lambda: mock.patch.object(disk, "sync_folder", nothing), survives_power_loss),
    ("the way to a run is not synced", lambda: mock.patch.object(disk, "sync_way_to", nothing), survives_power_loss),
    ("the journal is not flushed", lambda: mock.patch.object(journal.Journal, "flush", nothing), survives_power_loss),
    ("half-written files stay", lambda: mock.patch.object(disk, "sweep", nothing), survives_calls(KILLED, "replace")),
    (
        "what is answered is run again",
        lambda: mock.patch.object(run_log, "read_record", nothing),
        survives_calls(KILLED_AFTER, "rmdir"),
    ),
]


def killed(mutant: Callable[[], Mutant], check: Check, scratch: Path) -> str | None:
    """None where the check fails with the mutant."""
    place = Path(tempfile.mkdtemp(dir=scratch))
    try:
        with mutant():
            try:
                found = check(place)
            except Exception as error:  # it could not even be run
                found = [repr(error)]
        return None if found else "nothing noticed it"
    finally:
        shutil.rmtree(place)
