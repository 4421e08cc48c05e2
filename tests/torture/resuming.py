"""Stopped at a step and resumed from there: bit for bit the result of an undisturbed run."""

import itertools
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from batchlab.recording.checkpoint_files import write_checkpoint
from batchlab.recording.run_folder import read_record
from batchlab.worker import run_log
from torture.comparison import came_to, differences
from torture.forks import in_a_child
from torture.tiny import ADAMW, SGD, folder_of, stop_at, tiny, train

BATCH_SIZE, STEPS = 6, 22
COMBINATIONS: list[dict[str, Any]] = [
    {
        "optimizer": optimizer,
        "model": model,
        "accumulate": accumulate,
        "precision": precision,
        "batch_size": BATCH_SIZE,
        "steps": STEPS,
        # None of these divides another, nor the batch: every instrument's cadence straddles the steps.
        "log_every": 17,
        "eval_every": 25,
        "checkpoint_every": checkpoint_every,
        "schedule": "cosine",
        "warmup": 0.2,
    }
    for i, (optimizer, model, accumulate, precision) in enumerate(
        itertools.product((SGD, ADAMW), ({"norm": True}, {"dropout": 0.3}), (None, 3), ("fp32", "bf16", "fp16"))
    )
    for checkpoint_every in ((BATCH_SIZE, None)[i % 2],)  # at every step, or only where it is stopped
]
# Each is a trap of its own.
TRAPS: list[dict[str, Any]] = [
    {"model": {"norm": True, "dropout": 0.2, "hidden_buffer": True}},
    {"dtype": "float64", "model": {"dropout": 0.2}, "optimizer": ADAMW},
    {"target": {"metric": "val/loss", "value": 0.9}, "lr": 0.1, "steps": 20},
    {"target": {"metric": "val/loss", "value": 0.9}, "lr": 0.1, "steps": 20, "stop_at_target": True},
    {"target": {"metric": "val/accuracy", "value": 0.6}, "lr": 0.1, "steps": 20, "checkpoint_every": 4},
    {"clip_norm": 0.1, "precision": "fp16", "lr": 0.2, "model": {"gain": 300.0}},  # some of its steps are skipped
    {
        "steps": 30,
        "batch_size": 7,
        "micro_batch_size": 3,
        "eval_every": 10,
        "log_every": 9,
        "model": {"dropout": 0.2},
    },  # ragged, three epochs
    {"checkpoint_seconds": 1e-9, "log_every": 15, "eval_every": 9, "checkpoint_every": None},
]


def undisturbed(config: dict[str, Any], scratch: Path) -> tuple[dict[str, Any], int]:
    """What the run comes to, and after how many steps."""
    place = Path(tempfile.mkdtemp(dir=scratch))
    made = tiny(place, **config)
    record = train(made)
    assert record.status.is_final, record.reason
    found = came_to(folder_of(made))
    shutil.rmtree(place)
    return found, record.steps


def exact(config: dict[str, Any], stops: tuple[int, ...], expected: dict[str, Any], scratch: Path) -> str | None:
    """Stops after so many steps each time, each in a call of its own, then runs to the end; what differs."""
    place = Path(tempfile.mkdtemp(dir=scratch))
    made = tiny(place, **config)
    try:
        reached, seconds = 0, 0.0
        for stop in stops:
            record = train(made, stopping=stop_at(stop))
            reached += stop
            if record.train_seconds <= seconds:
                return f"{config} stopped at {stops}: its clock was set back"
            seconds = record.train_seconds
            if record.status != "interrupted" or record.steps != reached:
                return f"{config} stopped at {stops}: {record.status} after step {record.steps}: {record.reason}"
        record = train(made)
        if record.train_seconds <= seconds and record.steps > reached:
            return f"{config} stopped at {stops}: its clock was set back"
        steps = tuple(itertools.accumulate(stops))
        if record.status.is_final and record.resumed_at != steps:
            return f"{config}: resumed from {record.resumed_at}, not {steps}"
        wrong = differences(came_to(folder_of(made)), expected)
        return f"{config} stopped at {stops}: {'; '.join(wrong[:4])}" if wrong else None
    finally:
        shutil.rmtree(place)


def cases(scale: float = 1.0) -> Iterator[tuple[dict[str, Any], list[tuple[int, ...]]]]:
    """Each configuration, with the steps it is stopped at: each of them, or a share; and two in one run."""
    for i, config in enumerate((*COMBINATIONS, *TRAPS)):
        steps = int(config.get("steps", 10))
        every = [*((step,) for step in range(1, steps)), (steps // 3, steps // 3)]
        stride = max(1, round(1 / scale))
        yield config, every[i % stride :: stride] if len(every) > i % stride else every[:1]


def exact_after_each_checkpoint(config: dict[str, Any], scratch: Path) -> tuple[int, list[str]]:
    """A run whose folder is copied after every checkpoint, as a kill would leave it: how many, and what differs."""
    place = Path(tempfile.mkdtemp(dir=scratch))
    made = tiny(place / "whole", **config)
    copies: list[Path] = []

    def and_copy(run_folder: Path, step: int, content: bytes) -> Path:
        path = write_checkpoint(run_folder, step, content)
        copies.append(place / f"copy{len(copies)}")
        shutil.copytree(run_folder, folder_of(tiny(copies[-1], **config)))
        return path

    try:
        with mock.patch.object(run_log, "write_checkpoint", and_copy):
            train(made)
        expected, wrong = came_to(folder_of(made)), []
        for copy in copies:
            again = tiny(copy, **config)
            record = train(again)
            found = differences(came_to(folder_of(again)), expected)
            if not record.resumed_at:
                found.append("it did not resume from its checkpoint")
            if found:
                wrong.append(
                    f"{config} killed after its checkpoint of step {record.resumed_at}: {'; '.join(found[:4])}"
                )
        return len(copies), wrong
    finally:
        shutil.rmtree(place)


def seconds_of(config: dict[str, Any], scratch: Path) -> float:
    """How long the run takes in a child."""
    place = Path(tempfile.mkdtemp(dir=scratch))
    began = time.monotonic()
    in_a_child(lambda: str(train(tiny(place, **config)).status))
    shutil.rmtree(place)
    return time.monotonic() - began


def moments(seconds: float, draw: random.Random) -> tuple[float, ...]:
    """When a run that takes so long is killed, once to three times."""
    return tuple(draw.uniform(0, seconds) for _ in range(draw.randint(1, 3)))


def exact_after_kills(
    config: dict[str, Any], delays: Sequence[float], expected: dict[str, Any], scratch: Path
) -> str | None:
    """Killed so many seconds after its start each time, in a child, then runs to the end; what differs."""
    place = Path(tempfile.mkdtemp(dir=scratch))
    made = tiny(place, **config)
    checkpoints = folder_of(made) / "checkpoints"

    def until_killed(delay: float) -> str:
        signal.setitimer(signal.ITIMER_REAL, delay)  # its signal ends the process at once, wherever it is
        return str(train(made).status)

    try:
        for delay in delays:
            ending = in_a_child(lambda delay=delay: until_killed(delay))  # type: ignore[misc]
            # Killed after it had reported, the report is still as it was written, in JSON.
            if ending.code not in (0, -signal.SIGALRM) or ending.reported not in ("", "completed", '"completed"'):
                return f"{config} killed after {delays} s: {ending}"
        before = read_record(folder_of(made))  # None: killed before it was written
        can_resume = before is not None and not before.status.is_final and any(checkpoints.glob("*.pt"))
        record = train(made)
        wrong = differences(came_to(folder_of(made)), expected)
        if can_resume and not record.resumed_at:
            wrong.insert(0, "its checkpoints were not used")
        return f"{config} killed after {delays} s: {'; '.join(wrong[:4])}" if wrong else None
    finally:
        shutil.rmtree(place)
