"""Runs and probes on a simulated GPU of a known size, for which arithmetic shows what fits."""

import contextlib
from dataclasses import replace

import pytest
import torch
from simulated_device import simulated_cuda
from torch import nn
from torture.tiny import Data, tiny, train

from batchlab.instruments import Instrument
from batchlab.science.memory.largest_fit import Outcome, largest_fit
from batchlab.task import Task
from batchlab.training.devices import named
from batchlab.worker.probe import probe

MIB = 2**20
ROOM = 80 * MIB  # for PyTorch, in addition to the context of 32 MiB


class Wide(nn.Module):
    """A tensor of 1 MiB for each example, saved for the backward pass, and another of the same size after it."""

    def __init__(self, validation: int = 1) -> None:
        super().__init__()
        self.layer, self.validation = nn.Linear(6, 3), validation

    def forward(self, x):
        many = 1 if self.training else self.validation  # an evaluation may need more than training
        wide = x[:, :1].expand(-1, many * MIB // 4).contiguous()
        return self.layer(x) + (wide.exp() * self.layer.bias[0]).sum(dim=1, keepdim=True)


class Many(Task):
    """64 training and 64 validation examples: 64 MiB and more at once."""

    def __init__(self, padding: int = 0) -> None:
        made = Data(examples=64)
        val = tuple(torch.cat([part] * 4) for part in made.val)
        train = made.train
        if padding:
            train = (torch.cat([train[0], torch.zeros(64, padding)], dim=1), train[1])
        super().__init__(**vars(made) | {"train": train, "val": val})


class Large(Instrument):
    """Takes all of the device's memory."""

    def __init__(self, eval_every: int) -> None:
        self.every = eval_every

    def measure(self, state):
        torch.zeros(ROOM // 4, device=state.device.torch_device)
        yield state.measurement("large/fits", 1)


@contextlib.contextmanager
def one_gpu(**machine):
    with simulated_cuda(total_bytes=ROOM + 32 * MIB, **machine) as cuda:
        yield cuda.gpus[0]


@pytest.fixture
def gpu():
    with one_gpu() as alone:
        yield alone


def point(tmp_path, *, validation=1, instruments=(), **changes):
    data = {"_target_": f"{__name__}.Many"} | changes.pop("data", {})
    changes = {"device": "cuda", "checkpoint_every": None, "optimizer": {"_target_": "torch.optim.SGD"}} | changes
    config = tiny(tmp_path, **({"steps": 4} | changes))
    kept = {name: config.instruments[name] for name in ("validation", "memory", "training_loss")}
    mine = {name: {"_target_": f"{__name__}.{name}"} for name in instruments}
    model = {"_target_": f"{__name__}.Wide", "validation": validation}
    return replace(config, model=model, data=data, instruments=kept | mine)


def test_a_validation_of_all_examples_is_halved_until_two_tensors_of_each_fit(gpu, tmp_path):
    record = train(point(tmp_path))

    assert (record.status, record.eval_batch_size_used) == ("completed", 16)  # 3 x 32 MiB is more than 80
    assert len(record.notes) == 1
    assert gpu.memory.ooms == 2  # of 64 and of 32


def test_a_batch_that_takes_more_than_there_is_is_oom_whatever_the_validation_was_halved_to(gpu, tmp_path):
    record = train(point(tmp_path, batch_size=40))

    assert (record.status, record.phase) == ("oom", "forward")
    assert record.reason.startswith("in forward: CUDA out of memory. Tried to allocate 40.00 MiB.")
    assert record.eval_batch_size_used == 16
    assert "val/loss" in record.final


def test_an_instrument_larger_than_the_device_is_left_out_and_what_it_took_is_given_back(gpu, tmp_path):
    record, alone = train(point(tmp_path / "a", instruments=("Large",))), train(point(tmp_path / "b"))

    assert (record.status, "large/fits" in record.final) == ("completed", False)
    left_out = "instrument Large does not fit in the memory that training leaves free: left out from the start"
    assert record.notes == (*alone.notes, left_out)
    assert record.weights_fingerprint == alone.weights_fingerprint


def test_a_validation_of_one_example_that_does_not_fit_is_a_failure_and_no_result(gpu, tmp_path):
    record = train(point(tmp_path, validation=60, eval_batch_size=2))

    assert (record.status, record.phase) == ("failed", "validation")
    assert record.reason.startswith("the validation does not fit in memory: eval_batch_size=2 was halved down to 1")
    assert "CUDA out of memory. Tried to allocate 60.00 MiB." in record.reason


def test_a_set_whose_room_another_program_takes_meanwhile_is_a_failure_of_the_data(tmp_path, monkeypatch):
    with one_gpu(others_bytes=ROOM - 2 * MIB):
        kind = type(named.device_named("cuda"))
        monkeypatch.setattr(kind, "free_bytes", kind.total_bytes)  # so much was free when it was queried
        record = train(point(tmp_path, data={"padding": 2**14}))

    assert (record.status, record.phase) == ("failed", "data")
    assert record.reason.startswith("the data does not fit in memory (CUDA out of memory. Tried to allocate 20.00 MiB.")
    assert "a map-style Dataset" in record.reason


def tried(tmp_path, size, **changes):
    """A probe on a new GPU, as in a new process."""
    limits = {"allowed": ROOM, "headroom": 0.0, "exact": False, "steps": 3, "seconds": 0.0}
    with one_gpu():
        return probe(point(tmp_path, batch_size=4, **changes), size, **limits)


def test_a_probe_judges_training_alone_and_its_bytes_are_trainings(tmp_path):
    """A validation of one example takes 3 x 16 MiB, as much as training with 16 examples."""
    light, heavy = (tried(tmp_path, 4, validation=many)[0] for many in (1, 16))

    assert light.outcome is heavy.outcome is Outcome.FITS
    assert light.peak_bytes == heavy.peak_bytes < 24 * MIB


def test_a_search_finds_what_training_takes_however_much_a_validation_does(tmp_path):
    found = largest_fit(lambda size: tried(tmp_path, size, validation=4)[0], at_most=64)

    assert found.fault is None
    assert 20 <= found.largest <= 40  # two to four tensors of 1 MiB per example at once
    assert found.larger.phase in ("forward", "backward")


def test_if_no_validation_fits_no_size_is_found_and_the_reason_is_given(tmp_path):
    made, _ = tried(tmp_path, 2, validation=60)

    assert (made.outcome, made.phase) == (Outcome.OOM, "validation")


def test_an_account_that_does_not_fit_does_not_change_the_outcome_of_its_probe(tmp_path, monkeypatch):
    made, account = tried(tmp_path, 4)
    assert (made.outcome, account is None) == (Outcome.FITS, False)

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("batchlab.instruments.memory_account.saved_for_backward_bytes", full)
    again, account = tried(tmp_path, 4)

    assert (again.outcome, again.reason, again.phase, account) == (Outcome.FITS, "", "", None)
    assert again.peak_bytes == made.peak_bytes


def test_the_account_is_made_without_the_limit(tmp_path, monkeypatch):
    allowed = []
    shares = torch.cuda.get_per_process_memory_fraction
    monkeypatch.setattr("batchlab.worker.probe.account", lambda *_: allowed.append(shares(0)))

    tried(tmp_path, 4)

    assert allowed == [1.0]
