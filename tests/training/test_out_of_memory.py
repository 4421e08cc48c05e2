"""Out-of-memory errors in a run: where they happened, and what follows for the batch size."""

import ctypes
import json
import resource
from dataclasses import replace

import pytest
import torch
from torch import nn
from torture.forks import in_a_child
from torture.tiny import SGD, Data, folder_of, stop_at, tiny, train

from batchlab.instruments import Instrument
from batchlab.records import RunRecord, RunStatus
from batchlab.task import Task
from batchlab.training.devices.process_memory import status_bytes
from batchlab.training.how_it_ended import how_it_ended
from batchlab.training.phase import TRAINING
from batchlab.worker.run_log import Listener

MIB = 2**20
FULL = "CUDA out of memory. Tried to allocate 2.00 GiB."


refusals: list[int] = []  # of the running test


def refuse():
    refusals.append(1)
    raise torch.OutOfMemoryError(FULL)


@pytest.mark.parametrize("phase", sorted(TRAINING))
def test_training_that_runs_out_of_memory_is_a_result_and_says_where(phase):
    assert how_it_ended(torch.OutOfMemoryError(FULL), phase) == (RunStatus.OOM, f"in {phase}: {FULL}")


@pytest.mark.parametrize("phase", ["building", "data", "validation", "checkpoint", "instrument gradient"])
def test_anything_else_that_runs_out_of_memory_is_a_failure(phase):
    status, reason = how_it_ended(torch.OutOfMemoryError(FULL), phase)

    assert status is RunStatus.FAILED
    assert FULL in reason
    assert len(reason.splitlines()) == 1


def test_the_meaning_of_other_errors_does_not_depend_on_the_phase():
    for phase in ("forward", "data"):
        assert how_it_ended(ValueError("no"), phase) == (RunStatus.FAILED, "ValueError: no")


class Net(nn.Module):
    """Runs out of memory in `where`, with more than `most` examples at once."""

    def __init__(self, where: str = "", most: int = 3) -> None:
        super().__init__()
        if where == "building":
            refuse()
        self.layer, self.where, self.most = nn.Linear(6, 3), where, most

    def forward(self, x):
        crowded = len(x) > self.most
        if crowded and self.where == ("forward" if self.training else "validation"):
            refuse()
        out = self.layer(x)
        if self.where == "backward" and self.training and crowded:
            out.register_hook(lambda gradient: refuse())
        return out


class Late(torch.optim.SGD):
    """Runs out of memory in its third step."""

    steps = 0

    def step(self, closure=None):
        self.steps += 1
        return refuse() if self.steps == 3 else super().step(closure)


class Unreadable(Data):
    """Data that does not fit."""

    def __init__(self) -> None:
        raise MemoryError("Unable to allocate 80.0 GiB for an array")


class Growing(Task):
    """Batches that do not fit, because augmenting them takes too much."""

    def __init__(self) -> None:
        super().__init__(**vars(Data()) | {"augment": lambda batch, draws: refuse()})


shown: list[object] = []  # the steps that the newest `Hungry` watched


class Hungry(Instrument):
    """Measures until it runs out of memory."""

    def __init__(self, eval_every: int, until: int = 0, at_the_end: bool = False) -> None:
        self.every, self.until, self.at_the_end = eval_every, until, at_the_end
        self.watched = 0
        shown.clear()

    def watch(self, outcome):
        self.watched += 1
        shown.append(outcome)

    def measure(self, state):
        yield state.measurement("hungry/watched", self.watched)
        if state.examples >= self.until:
            refuse()

    def conclude(self, state):
        if self.at_the_end:
            refuse()
        yield state.measurement("hungry/concluded", 1)


class Heard(Listener):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def lean(tmp_path, where="", **changes):
    model = {"_target_": f"{__name__}.Net", "where": where, "most": changes.pop("most", 3)}
    config = tiny(tmp_path, **({"checkpoint_every": None} | changes))
    return replace(config, model=model)


@pytest.mark.parametrize(
    ("changes", "phase", "steps"),
    [
        ({"where": "forward"}, "forward", 0),  # the rehearsal is a pass of training
        ({"where": "backward"}, "backward", 0),
        ({"optimizer": {"_target_": f"{__name__}.Late"}}, "optimizer", 2),
        ({"where": "backward", "batch_size": 8, "micro_batch_size": 4}, "backward", 0),
        ({"where": "forward", "precision": "bf16"}, "forward", 0),
    ],
)
def test_a_run_that_does_not_fit_is_a_result_with_its_phase_and_earlier_measurements(changes, phase, steps, tmp_path):
    config = lean(tmp_path, **changes)

    record = train(config)

    assert (record.status, record.phase, record.reason) == ("oom", phase, f"in {phase}: {FULL}")
    assert record.steps == steps
    assert "val/loss" in record.final
    kept = json.loads((folder_of(config) / "record.json").read_text())
    assert (kept["phase"], kept["status"]) == (phase, "oom")
    assert RunRecord.from_dict(kept) == record


def test_a_batch_that_does_not_fit_is_a_result_too(tmp_path):
    record = train(lean(tmp_path, data={"_target_": f"{__name__}.Growing"}))

    assert (record.status, record.phase, record.reason) == ("oom", "batch", f"in batch: {FULL}")


@pytest.mark.parametrize(
    ("changes", "phase", "message"),
    [
        ({"where": "building"}, "building", "the model and its optimizer do not fit in memory"),
        ({"data": {"_target_": f"{__name__}.Unreadable"}}, "data", "the data does not fit in memory"),
        (
            {"where": "validation", "most": 0},
            "validation",
            "the validation does not fit in memory: eval_batch_size=1000 was halved down to 1, but even one example "
            "does not fit",
        ),
    ],
)
def test_what_fits_at_no_batch_size_is_a_failure_with_advice(changes, phase, message, tmp_path):
    record = train(lean(tmp_path, **changes))

    assert (record.status, record.phase) == ("failed", phase)
    assert record.reason.startswith(message)


def test_a_validation_that_does_not_fit_is_halved_in_a_run_and_the_record_says_so(tmp_path):
    crowded, free = lean(tmp_path / "a", where="validation"), lean(tmp_path / "b")
    heard = Heard()

    record, expected = train(crowded, listener=heard), train(free)

    note = (
        "eval_batch_size=1000 does not fit in the memory that training leaves free: evaluated at most 2 examples at a "
        "time"
    )
    assert (record.status, record.eval_batch_size_used, record.notes) == ("completed", 2, (note,))
    assert heard.notes == [note]
    assert (expected.eval_batch_size_used, expected.notes) == (1000, ())
    assert record.final["val/loss"] == pytest.approx(expected.final["val/loss"], rel=1e-6)
    assert record.weights_fingerprint == expected.weights_fingerprint


def test_a_resumed_run_evaluates_as_many_examples_at_once_as_before(tmp_path):
    config = lean(tmp_path, where="validation", checkpoint_every=4)
    first = train(config, stopping=stop_at(5))
    assert refusals
    refusals.clear()
    heard = Heard()
    second = train(config, listener=heard)

    assert (first.status, second.status, second.resumed_at) == ("interrupted", "completed", (5,))
    assert second.notes == first.notes != ()
    assert second.eval_batch_size_used == 2
    assert (heard.notes, refusals) == ([], [])


def test_an_instrument_that_does_not_fit_is_left_out_from_there_on_and_costs_the_run_nothing(tmp_path):
    def with_it(**keys):
        config = lean(tmp_path / str(keys), eval_every=8)
        instruments = {**config.instruments, "hungry": {"_target_": f"{__name__}.Hungry", **keys}}
        return train(replace(config, instruments=instruments)), folder_of(config)

    expected, _ = with_it(until=1000)
    record, folder = with_it(until=16)

    note = "instrument hungry does not fit in the memory that training leaves free: left out after 16 examples"
    assert (record.status, record.reason, record.phase, record.notes) == ("completed", "", "", (note,))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    seen = [(line["examples"], line["value"]) for line in lines if line["name"].startswith("hungry/")]
    assert seen == [(0, 0), (8, 2), (16, 4)]  # its measurements are kept, and it does not conclude
    assert len(shown) == 4
    assert record.weights_fingerprint == expected.weights_fingerprint
    assert record.steps == expected.steps == 10
    assert expected.final["hungry/concluded"] == 1

    late, _ = with_it(until=1000, at_the_end=True)
    assert late.status == "completed"
    assert late.notes == (note.replace("16", "40"),)


def test_the_forward_pass_that_counts_what_is_saved_costs_no_peaks(tmp_path, monkeypatch):
    monkeypatch.setattr("batchlab.instruments.memory.saved_for_backward_bytes", lambda *_: refuse())

    record = train(lean(tmp_path))

    assert record.status == "completed"
    assert "memory/peak_resident_bytes" in record.final
    assert "memory/saved_for_backward_bytes" not in record.final
    assert record.notes == ("memory/saved_for_backward_bytes is not measured: its forward pass does not fit in memory",)


def test_a_checkpoint_that_does_not_fit_costs_the_run_nothing_and_an_interrupted_one_its_end(tmp_path, monkeypatch):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr("batchlab.training.checkpoint.torch.save", full)
    whole = train(lean(tmp_path / "a", checkpoint_every=12))
    stopped = train(lean(tmp_path / "b", checkpoint_every=12), stopping=stop_at(2))

    assert (whole.status, whole.steps) == ("completed", 10)
    assert whole.notes == (
        "checkpoint does not fit in the memory that training leaves free: left out after 12 examples",
    )
    assert (stopped.status, stopped.phase, stopped.steps) == ("failed", "checkpoint", 2)
    assert stopped.reason.startswith("the checkpoint does not fit in the host's memory")


def test_an_older_record_can_be_read(tmp_path):
    record = train(lean(tmp_path))
    old = record.to_dict()
    for name in ("phase", "notes", "eval_batch_size_used"):
        del old[name]

    opened = RunRecord.from_dict(old)

    assert (opened.phase, opened.notes, opened.eval_batch_size_used) == ("", (), None)


class Wide(nn.Module):
    """4 MiB for each example, in real memory."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(x) + x[:, :1].expand(-1, MIB).contiguous().sum(dim=1, keepdim=True)


@pytest.mark.parametrize(("batch_size", "status"), [(4, "completed"), (192, "oom")])
def test_on_the_cpu_a_limit_of_the_kernel_halves_the_validation_and_stops_training(batch_size, status, tmp_path):
    config = lean(tmp_path, batch_size=batch_size, steps=1, optimizer=SGD)
    config = replace(
        config,
        model={"_target_": f"{__name__}.Wide"},
        data={"_target_": f"{__name__}.Many"},
        instruments={"validation": config.instruments["validation"]},
    )

    def limited():
        ctypes.CDLL(None).malloc_trim(0)  # memory that other tests have left in the heap
        limit = status_bytes("VmData") + 200 * MIB
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        record = train(config)
        return [record.status, record.phase, record.reason, record.eval_batch_size_used]

    ended = in_a_child(limited)

    assert ended.code == 0, ended.reported
    found, phase, reason, used = ended.reported
    assert (found, phase) == (status, "" if status == "completed" else "forward")
    assert 16 <= used <= 128  # of 256, which would need 1 GiB; 200 MiB and the free part of the heap are available
    assert status == "completed" or "can't allocate memory" in reason


class Many(Task):
    """192 training examples, 256 validation examples."""

    def __init__(self) -> None:
        made = Data(examples=192)
        super().__init__(**vars(made) | {"val": tuple(torch.cat([part] * 16) for part in made.val)})
