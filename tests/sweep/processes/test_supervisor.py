"""Sweeps that survive: a point that hangs, does not fit, is held by another sweep, is stopped, or has company."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from sweep_runs import Silent

from batchlab.config.options import SWEEP
from batchlab.errors import BadRequest, StorageError
from batchlab.recording.run_folder import hold, holder, write_record
from batchlab.records import RunStatus
from batchlab.sweep.processes import attempt, supervisor
from batchlab.sweep.summary.progress import UnreadConsole, progress

BASE = ("batch_size=64", "examples=640")
NETS = """
import os, signal, torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.steps = torch.nn.Linear(64, 10), 0
    def forward(self, x):
        self.steps += self.training
        return self.layer(x.flatten(1))

class Hangs(Net):
    '''Works for three steps and then hangs, ignoring every signal except SIGKILL.'''
    def __init__(self):
        super().__init__()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    def forward(self, x):
        while self.steps > 3:
            pass
        return super().forward(x)

class FitsUpTo100(Net):
    def forward(self, x):
        if self.training and len(x) > 100:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return super().forward(x)

class ValidatesUpTo100(Net):
    def forward(self, x):
        if not self.training and len(x) > 100:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return super().forward(x)

class NeverValidates(Net):
    def forward(self, x):
        if not self.training:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return super().forward(x)

class Stops(Net):
    '''Sends the sweep a signal from its fifth forward pass in training, once.'''
    def forward(self, x):
        if self.training and self.steps == 5 and os.environ.get("STOP"):
            os.kill(int(os.environ["STOP"]), signal.SIGTERM)
        return super().forward(x)
"""


@pytest.fixture(autouse=True)
def nets(tmp_path):
    (tmp_path / "nets.py").write_text(NETS)


def curves(lab, point):
    return [
        (m.name, m.value, m.step, m.examples) for m in lab.metrics(point) if not m.name.startswith(("speed/", "mem"))
    ]


def test_a_point_that_hangs_is_ended_at_its_timeout_and_the_sweep_continues(lab):
    hangs = lab.point(*BASE, "model._target_=nets.Hangs", "timeout=1")
    outcome = lab.run(hangs, lab.point(*BASE))
    assert [record.status for record in outcome.records] == [RunStatus.TIMEOUT, RunStatus.COMPLETED]
    assert outcome.records[0].reason == "took longer than timeout=1 seconds"
    assert outcome.exit_code == 3
    assert json.loads((hangs.folder / "record.json").read_text())["status"] == "timeout"


class Late(Silent):
    """Looks at the clock an hour later as soon as the run has trained beyond so many examples."""

    clock, beyond = 0.0, 0

    def update(self, run_id, examples, loss, examples_per_second):
        super().update(run_id, examples, loss, examples_per_second)
        if examples > self.beyond:
            self.clock, self.beyond = self.clock + 3600.0, sys.maxsize


def test_a_point_that_listens_keeps_a_checkpoint_at_its_timeout_and_continues_with_more_time(lab, monkeypatch):
    late = Late()
    monkeypatch.setattr(attempt, "time", SimpleNamespace(monotonic=lambda: late.clock))
    slow = ("batch_size=1", "epochs=1000", "log_every=1", "eval_every=100000", "timeout=60")
    (first,) = lab.run(lab.point(*slow), spectator=late).records
    assert (first.status, first.steps > 0) == (RunStatus.TIMEOUT, True)
    assert first.reason.endswith(f"stopped after step {first.steps:,} with a checkpoint")
    late.beyond = first.steps
    (second,) = lab.run(lab.point(*slow, "retry=[timeout]"), spectator=late).records
    assert second.resumed_at == (first.steps,)
    assert second.steps > first.steps


def test_what_is_larger_than_what_did_not_fit_is_not_tried(lab):
    points = [lab.point(f"batch_size={n}", "examples=640", "model._target_=nets.FitsUpTo100") for n in (64, 128, 256)]
    outcome = lab.run(*points)
    assert [(r.status.value, r.attempts) for r in outcome.records] == [("completed", 1), ("oom", 1), ("oom", 0)]
    assert outcome.records[2].reason == "not run: batch_size=128 did not fit"
    assert outcome.exit_code == 0
    again = [
        lab.point(f"batch_size={n}", "examples=640", "model._target_=nets.FitsUpTo100", "skip_larger=false")
        for n in (64, 128, 256)
    ]
    assert [r.attempts for r in lab.run(*again).records] == [1, 1, 1]


def test_a_grid_of_learning_rates_pays_once_for_what_does_not_fit(lab):
    net = ("examples=256", "model._target_=nets.FitsUpTo100")
    points = [lab.point(f"batch_size={n}", f"lr={lr}", *net) for n in (128, 256) for lr in (0.1, 0.2)]
    records = lab.run(*points).records

    assert [(r.status.value, r.attempts) for r in records] == [("oom", 1), ("oom", 0), ("oom", 0), ("oom", 0)]
    assert [r.reason for r in records[1:]] == [
        "not run: batch_size=128 lr=0.1 did not fit",
        "not run: batch_size=128 did not fit",
        "not run: batch_size=128 lr=0.1 did not fit",
    ]
    assert [r.attempts for r in lab.run(*points).records] == [1, 0, 0, 0]  # final results, as they were


def test_a_validation_says_nothing_of_a_batch_size_and_keeps_no_larger_one_from_being_run(lab):
    fits, never = (
        lab.run(*(lab.point(f"batch_size={n}", "examples=256", f"model._target_=nets.{net}") for n in (64, 128)))
        for net in ("ValidatesUpTo100", "NeverValidates")
    )

    assert [(r.status, r.eval_batch_size_used, r.attempts) for r in fits.records] == [("completed", 90, 1)] * 2
    assert fits.exit_code == 0
    assert [(r.status, r.phase, r.attempts) for r in never.records] == [("failed", "validation", 1)] * 2
    assert all(r.reason.startswith("the validation does not fit in memory: ") for r in never.records)
    assert never.exit_code == 3


def test_a_point_that_another_sweep_holds_is_left_to_it_and_its_final_result_taken(lab):
    held, free = lab.point(*BASE, "seed=1"), lab.point(*BASE)

    class Other(Silent):
        """Plays the other sweep: answers and lets go once this one has nothing else to do."""

        def finish(self, run_id, status, record):
            super().finish(run_id, status, record)
            write_record(held.folder, held.new_record(RunStatus.DIVERGED, "by the other sweep"))
            holding.__exit__(None, None, None)

    holding = hold(held.folder)
    holding.__enter__()
    assert "is being run by pid" in holder(held.folder)
    spectator = Other()
    outcome = lab.run(held, free, spectator=spectator)
    assert [record.reason for record in outcome.records] == ["by the other sweep", ""]
    assert [reported for reported in spectator.reported if "left to that sweep" in reported]
    assert holder(held.folder) is None
    assert outcome.exit_code == 0


def test_a_signal_stops_it_after_a_step_and_the_next_sweep_continues_to_the_same_bits(lab, monkeypatch):
    requested = (*BASE, "model._target_=nets.Stops", "log_every=64")
    undisturbed = lab.point(*requested, "study=undisturbed")
    lab.run(undisturbed)

    point, later = lab.point(*requested), lab.point(*BASE, "seed=3")
    spectator = Silent()

    class Stopped(Silent):
        def update(self, run_id, examples, loss, examples_per_second):
            super().update(run_id, examples, loss, examples_per_second)
            if not self.reported.count("output"):
                self.reported.append("output")
                os.kill(os.getpid(), signal.SIGTERM)

    spectator = Stopped()
    outcome = lab.run(point, later, spectator=spectator)
    assert outcome.exit_code == 143
    (record,) = outcome.records  # the later point was not begun
    assert record.status in (RunStatus.INTERRUPTED, RunStatus.COMPLETED)
    finished = lab.run(point, later)
    assert finished.exit_code == 0
    assert curves(lab, point) == curves(lab, undisturbed)
    assert finished.records[0].weights_fingerprint is not None


def test_points_at_once_are_marked_as_sharing_the_machine(lab, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    long = ("batch_size=8", "epochs=10")
    outcome = lab.run(*(lab.point(*long, f"seed={seed}", "jobs=2") for seed in (0, 1)))
    assert [record.shared_machine for record in outcome.records] == [True, True]
    alone = lab.run(*(lab.point(*BASE, f"seed={seed}") for seed in (0, 1)))
    assert [record.shared_machine for record in alone.records] == [False, False]


@pytest.mark.slow  # a server of its own, whose environment has no folder for leases
def test_points_at_once_are_marked_where_leases_cannot_tell(tmp_path):
    words = ["sweep", "device=cpu", "batch_size=64", "seed=0,1", "jobs=2", "steps=2", "report=false", "study=here"]
    done = subprocess.run(
        [sys.executable, "-m", "batchlab.cli.main", *words],
        cwd=tmp_path,
        env={**os.environ, "XDG_RUNTIME_DIR": "/proc/1"},  # nobody makes a folder there
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    records = [json.loads(path.read_text()) for path in tmp_path.glob("runs/here/*/record.json")]
    assert [record["shared_machine"] for record in records] == [True, True]


def test_more_points_at_once_than_the_machine_has_room_for_are_refused(lab, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    with pytest.raises(BadRequest, match=r"jobs=3 with threads=1 needs 3 cores.*has 2: use jobs=2"):
        lab.run_sweep(lab.point("jobs=3"))
    with pytest.raises(BadRequest, match="needs 4 cores"):
        lab.run_sweep(lab.point("jobs=2", "threads=2"))


def test_a_disk_that_refuses_ends_the_sweep_and_costs_no_finished_point(lab):
    first, second = lab.point(*BASE), lab.point(*BASE, "seed=1")
    lab.run(first)
    second.folder.write_text("in the way")  # of the folder
    spectator = Silent()
    outcome = lab.run(first, second, lab.point(*BASE, "seed=2"), spectator=spectator)
    assert outcome.exit_code == 74
    assert str(second.folder) in outcome.storage
    assert [record.status for record in outcome.records] == [RunStatus.COMPLETED]
    assert not [reported for reported in spectator.reported if reported.startswith("finish")]


def test_a_dry_run_says_what_would_be_done_and_does_nothing(lab, capsys, tmp_path):
    lab.run(lab.point(*BASE))
    before = sorted(path for path in tmp_path.rglob("*"))
    assert lab.run_sweep(lab.point(*BASE, "dry_run=true"), lab.point(*BASE, "seed=1", "dry_run=true")) == 0
    assert capsys.readouterr().out.splitlines() == [
        "skip   batch_size=64  (completed)",
        "run    seed=1  (new)",
        "2 points, 1 to run, 1 to skip",
    ]
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_changed_code_under_an_extended_study_is_refused_unless_it_is_accepted(lab, tmp_path):
    requested = (*BASE, "model._target_=nets.Net")
    assert lab.run_sweep(lab.point(*requested)) == 0
    (tmp_path / "nets.py").write_text(NETS + "\n# changed\n")
    with pytest.raises(BadRequest, match=r"nets\.py changed since") as refusal:
        lab.run_sweep(lab.point(*requested), lab.point(*requested, "seed=1"))
    assert "accept_changed=true" in str(refusal.value)
    assert lab.run_sweep(lab.point(*requested)) == 0  # nothing is to be run: the final result is kept
    assert (
        lab.run_sweep(
            lab.point(*requested, "accept_changed=true"), lab.point(*requested, "seed=1", "accept_changed=true")
        )
        == 0
    )
    assert lab.run_sweep(lab.point(*requested, "seed=2")) == 0  # accepted once is accepted
    record = json.loads((lab.point(*requested, "seed=1").folder / "record.json").read_text())
    assert record["changes_accepted"] is True
    assert {*SWEEP}.isdisjoint(record["config"])


def test_the_wait_for_another_sweep_is_a_poll():
    assert supervisor.POLL_SECONDS <= 0.5


def test_a_reader_who_leaves_does_not_end_the_sweep(lab):
    reading, writing = os.pipe()
    os.close(reading)
    unread = os.fdopen(writing, "w")
    spectator = progress(total=2, console=UnreadConsole(file=unread))
    outcome = lab.run(lab.point(*BASE), lab.point(*BASE, "seed=1"), spectator=spectator)
    assert (outcome.exit_code, len(outcome.records), spectator.console.quiet) == (0, 2, True)
    with contextlib.suppress(BrokenPipeError):  # what it still held for its reader
        unread.close()


LATE = """
import json, os, pathlib, signal, threading, torch

def watch(folder, how):
    while True:
        try:
            if json.loads((folder / "record.json").read_text())["status"] == "completed":
                break
        except (OSError, ValueError):
            pass
    if how == "segv":
        os.kill(os.getpid(), signal.SIGSEGV)
    threading.Event().wait()

class Late(torch.nn.Module):
    '''Has a thread that dies, or does not end, once the run is over.'''
    def __init__(self, how):
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)
        for log in pathlib.Path("runs").glob("late/*/worker.log"):  # in the point's own process, not in the check
            threading.Thread(target=watch, args=(log.parent, how), daemon=how == "segv").start()
    def forward(self, x):
        return self.layer(x.flatten(1))
"""


@pytest.mark.parametrize("how", ["segv", "lingers"])
def test_a_process_that_ends_badly_after_its_final_result_costs_nothing(how, lab, tmp_path, monkeypatch):
    monkeypatch.setattr("batchlab.sweep.processes.attempt.LINGER_SECONDS", 0.5)
    (tmp_path / "late.py").write_text(LATE)
    point = lab.point(*BASE, "model._target_=late.Late", f"model.how={how}", "study=late")
    outcome = lab.run(point)
    assert (outcome.records[0].status, outcome.exit_code) == (RunStatus.COMPLETED, 0)
    assert json.loads((point.folder / "record.json").read_text())["status"] == "completed"


def test_a_damaged_record_is_kept_aside_and_its_point_run_again(lab):
    point = lab.point(*BASE)
    lab.run(point)
    whole = (point.folder / "record.json").read_text()
    (point.folder / "record.json").write_text(whole[:100])
    spectator = Silent()
    assert lab.run(point, spectator=spectator).records[0].status is RunStatus.COMPLETED
    assert [reported for reported in spectator.reported if "kept as *.damaged" in reported]
    assert (point.folder / "record.json.damaged").read_text() == whole[:100]
    assert (point.folder / "metrics.jsonl.damaged").exists()


def test_a_point_that_is_measured_again_counts_its_own_seconds_alone(lab):
    point = lab.point(*BASE)
    first = lab.run(point).records[0]
    write_record(point.folder, replace(first, wall_seconds=1e6))
    again = lab.one(*BASE, "force=true")
    assert again.attempts == 2
    assert again.wall_seconds < 1e5


def test_results_that_cannot_be_written_are_no_success(lab, capsys):
    point = lab.point(*BASE)
    (point.study_folder / "results.csv").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"results\.csv cannot be written.*1 of 1 point done and saved"):
        lab.run_sweep(point)
    assert "completed" in capsys.readouterr().out  # the table is shown all the same
