"""What a point's process sends reaches the sweep as it was sent, and is taken for the run that it names."""

import dataclasses
import pickle
import signal
import typing
from contextlib import ExitStack
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from plain_defaults import configured
from sweep_runs import Silent

from batchlab.records import Facts, RunRecord, RunStatus
from batchlab.science.memory.largest_fit import Outcome, Probe
from batchlab.sweep.points import Point
from batchlab.sweep.processes.attempt import Attempt, RunReport
from batchlab.sweep.processes.jobs import Job
from batchlab.worker import messages
from batchlab.worker.messages import Ended, Entered, Held, Notice, OfARun, Planned, Progress, StorageFailed

POINT = Point(configured(batch_size=8))
ID = POINT.run_id
RECORD = RunRecord(
    run_id=ID, study="s", status=RunStatus.OOM, config={"retry": ("oom",), "trust": []}, seed=0, batch_size=8
)
SENT: list[Any] = [
    POINT.assignment,
    Planned(ID, 640),
    Progress(ID, 64, 0.5, None),
    Entered(ID, "validation"),
    Notice(ID, "resumes at step 3"),
    Ended(ID, RECORD),
    Held(ID, "is held by process 7"),
    StorageFailed(ID, "no space left"),
    messages.GridAccepted((Facts(torch="2.14"),)),
    messages.GridRefused(("lr=x is invalid",)),
    messages.DeviceFailed("cuda", "its memory is full", "wait"),
    messages.Failed("it draws random numbers"),
    messages.ProbeRequest(configured(), 8, None, True, 0.3),
    messages.Probed(Probe(size=8, outcome=Outcome.FITS), None),
]


class Recorder(Silent):
    """A spectator who keeps which run each message was about."""

    def __init__(self) -> None:
        super().__init__()
        self.about: list[tuple[object, ...]] = []

    def expect(self, run_id: str, budget_examples: int) -> None:
        self.about.append(("expect", run_id, budget_examples))

    def update(self, run_id: str, examples: int, loss: float | None, examples_per_second: float | None) -> None:
        self.about.append(("update", run_id, examples, loss, examples_per_second))


@pytest.fixture
def attempt() -> tuple[Attempt, Connection]:
    """An attempt at a point that never runs, and its process's end of the pipe."""
    ours, theirs = Pipe()
    process: Any = None
    return Attempt(Job((POINT,)), process, ours, ExitStack(), lambda: 7.0, 0.0, 0), theirs


def test_every_message_is_frozen_and_comes_out_of_a_pipe_as_it_went_in() -> None:
    known = {kind for kind in vars(messages).values() if getattr(kind, "__module__", "") == messages.__name__}

    assert {type(message) for message in SENT} == known
    for message in SENT:
        assert pickle.loads(pickle.dumps(message)) == message
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(message, dataclasses.fields(message)[0].name, None)


def test_every_message_about_a_run_names_it_first() -> None:
    assert {dataclasses.fields(kind)[0].name for kind in typing.get_args(OfARun)} == {"run_id"}


def test_each_message_is_taken_for_what_it_says(attempt: tuple[Attempt, Connection]) -> None:
    heard, theirs = attempt
    spectator = Recorder()
    for message in SENT[1:8]:
        theirs.send(message)
        heard.receive(spectator)

    assert spectator.about == [("expect", ID, 640), ("update", ID, 64, 0.5, None)]
    assert spectator.reported == ["batch_size=8 seed=0: resumes at step 3"]
    assert heard.runs == {ID: RunReport(POINT, RECORD, "validation", "is held by process 7", "no space left")}
    assert heard.all_ended_at == 7.0
    assert not heard.finished


@pytest.mark.parametrize("message", SENT[1:8], ids=lambda message: type(message).__name__)
def test_a_message_about_a_run_of_another_job_is_a_fault_and_taken_for_none_of_this_ones(
    message: Any, attempt: tuple[Attempt, Connection]
) -> None:
    heard, theirs = attempt
    spectator = Recorder()
    theirs.send(dataclasses.replace(message, run_id="bs9"))

    with pytest.raises(ValueError, match=f"the process of {ID} sent a message about another run, bs9"):
        heard.receive(spectator)
    assert heard.runs == {ID: RunReport(POINT)}
    assert (heard.all_ended_at, spectator.about, spectator.reported) == (None, [], [])


def test_what_is_no_message_of_a_run_is_a_fault_and_not_quietly_dropped(attempt: tuple[Attempt, Connection]) -> None:
    heard, theirs = attempt
    theirs.send(("progress", {"examples": 64}))

    with pytest.raises(AssertionError, match="unreachable"):
        heard.receive(Silent())


class Killed:
    exitcode = -signal.SIGKILL


@pytest.mark.parametrize(
    ("phases", "status", "reason"),
    [
        (
            [],
            RunStatus.FAILED,
            " before its training began, so it is not oom, which says that a training step did not fit; free memory",
        ),
        (["batch"], RunStatus.OOM, ""),
        (
            ["batch", "validation"],
            RunStatus.FAILED,
            " in a validation, so it is not oom, which says that a training step did not fit; free memory, or use a "
            "smaller eval_batch_size",
        ),
        (["batch", "validation", "batch"], RunStatus.OOM, ""),
    ],
)
def test_only_memory_that_ran_out_in_training_is_a_result_of_the_batch_size(
    phases: list[str], status: RunStatus, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = Point(configured(runs_dir=str(tmp_path)))
    process: Any = Killed()
    ours, theirs = Pipe()
    heard = Attempt(Job((point,)), process, ours, ExitStack(), lambda: 7.0, 0.0, 4)
    monkeypatch.setattr("batchlab.sweep.processes.attempt.oom_kill_count", lambda: 5)
    for phase in phases:
        theirs.send(Entered(point.run_id, phase))
        heard.receive(Silent())

    record = heard.final_record(heard.runs[point.run_id])

    assert record.status is status
    assert record.reason == f"the kernel's out-of-memory killer ended its process (host memory ran out){reason}"


def test_a_pipe_that_is_closed_ends_the_attempt(attempt: tuple[Attempt, Connection]) -> None:
    heard, theirs = attempt
    theirs.close()

    heard.receive(Silent())

    assert heard.finished


def test_a_job_of_several_points_or_devices_is_refused(tmp_path: Path) -> None:
    point = Point(configured(runs_dir=str(tmp_path)))

    with pytest.raises(ValueError, match="a job of 2 points on 0 devices"):
        Job((point, point))
    with pytest.raises(ValueError, match="a job of 1 points on 2 devices"):
        Job((point,), ("GPU-a", "GPU-b"))
