"""When a CUDA context breaks, the record is kept with the first error."""

import math
from dataclasses import replace

import pytest
import torch
from simulated_device import simulated_cuda
from torch import nn
from torture.tiny import Data, stop_at, tiny, train

from batchlab.instruments import Instrument
from batchlab.task import Task
from batchlab.training.devices.broken_context import advice, is_broken_context
from batchlab.training.devices.named import device_named
from batchlab.training.devices.out_of_memory import how_it_failed, is_out_of_memory
from batchlab.training.first_error import finally_do
from batchlab.training.user_errors import message_and_place
from batchlab.worker.preflight import examine

ASSERT = "CUDA error: device-side assert triggered"
FIRST = "CUDA error: an illegal memory access was encountered"  # what breaks it; all later errors are ASSERT
gpus: list = []  # of the running test


def breaks():
    gpus[0].broken = "device-side assert triggered"
    raise torch.AcceleratorError(f"{FIRST}\nCUDA kernel errors might be asynchronously reported")


class Net(nn.Module):
    """Breaks the context in a training forward pass, `after` this many updates."""

    def __init__(self, after: float = math.inf) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(6, 3), nn.BatchNorm1d(3)
        self.after, self.made = after, self.layer.bias._version

    def forward(self, x):
        updates = self.layer.bias._version - self.made
        return breaks() if self.training and updates >= self.after else self.norm(self.layer(x))


class Breaking(Instrument):
    """Breaks the context in its second measurement, during a pass through the model."""

    def __init__(self, eval_every: int) -> None:
        self.every = eval_every

    def measure(self, state):
        from batchlab.training.passes.no_trace import leaving_no_trace

        with leaving_no_trace(state.model, state.device):
            if state.examples:
                breaks()
        yield state.measurement("breaking/whole", 1)


@pytest.fixture
def cuda():
    with simulated_cuda(total_bytes=2**30) as machine:
        gpus[:] = machine.gpus
        yield machine


def lean(tmp_path, *, after=math.inf, instruments=(), **changes):
    config = tiny(tmp_path, **({"device": "cuda", "checkpoint_every": None} | changes))
    kept = {name: config.instruments[name] for name in ("training_loss", "throughput", "validation")}
    mine = {name: {"_target_": f"{__name__}.{name}"} for name in instruments}
    return replace(config, model={"_target_": f"{__name__}.Net", "after": after}, instruments=kept | mine)


def test_what_was_measured_before_it_broke_is_kept_with_the_first_reason(cuda, tmp_path):
    record = train(lean(tmp_path, after=5))

    assert (record.status, record.phase) == ("failed", "forward")
    assert record.reason == f"AcceleratorError: {FIRST}{advice(RuntimeError(FIRST))}"
    assert (record.steps, record.examples) == (5, 20)
    assert record.train_seconds > 0
    assert {"val/loss", "train/loss", "speed/seconds_per_step"} <= record.final.keys()
    assert record.best["val/loss"]["examples"] in (0, 16)
    assert record.weights_fingerprint is None
    assert record.ended_at


def test_an_instrument_that_breaks_it_is_the_one_that_is_named(cuda, tmp_path):
    record = train(lean(tmp_path, instruments=("Breaking",)))

    assert (record.status, record.phase, record.steps) == ("failed", "instrument Breaking", 4)
    assert record.reason.startswith(f"AcceleratorError: {FIRST}")
    assert record.final["breaking/whole"] == 1


def test_a_stopped_run_whose_checkpoint_cannot_be_taken_keeps_what_it_came_to(cuda, tmp_path):
    stop = stop_at(3)

    def stopping():
        if stop():
            gpus[0].broken = "unspecified launch failure"
            return True
        return False

    record = train(lean(tmp_path), stopping=stopping)

    assert (record.status, record.steps, record.examples) == ("failed", 3, 12)
    assert "CUDA error: unspecified launch failure" in record.reason
    assert "train/loss" in record.final


def test_lifting_the_limit_of_a_broken_device_does_not_hide_the_error(cuda, monkeypatch):
    device = device_named("cuda")
    device.prepare(deterministic=False)

    def break_within_a_limit():
        with device.limited(2**20):
            monkeypatch.setattr(torch._C, "_cuda_setMemoryFraction", lambda *_: gpus[0].must_work())
            breaks()

    with pytest.raises(torch.AcceleratorError, match="illegal memory access"):
        break_within_a_limit()


def test_without_a_break_everything_works(cuda, tmp_path):
    """Otherwise the tests above would pass if nothing ever worked."""
    record = train(lean(tmp_path))

    assert (record.status, record.reason, record.phase, record.steps) == ("completed", "", "", 10)
    assert record.weights_fingerprint is not None


@pytest.mark.parametrize("clean_up", ["works", "fails"])
def test_clean_up_always_runs_and_does_not_hide_errors(clean_up):
    done = []

    def clean():
        done.append(1)
        if clean_up == "fails":
            raise ValueError("second")

    with pytest.raises(KeyError, match="first") as raised, finally_do(clean):
        raise KeyError("first")
    assert done == [1]
    notes = getattr(raised.value, "__notes__", [])
    assert notes == ([] if clean_up == "works" else ["Cleaning up after it failed as well: ValueError: second"])

    if clean_up == "fails":
        with pytest.raises(ValueError, match="second"), finally_do(clean):
            pass


def test_a_device_side_assert_names_the_likely_cause_and_the_command_that_shows_it():
    error = torch.AcceleratorError(f"{ASSERT}\nSearch for `cudaErrorAssert' in the documentation")

    for message in (how_it_failed(error)[1], message_and_place(_raised(error))):
        assert ASSERT in message
        assert "a label or an index is out of range for the model's classes or vocabulary" in message
        assert "device=cpu" in message
        assert "CUDA_LAUNCH_BLOCKING=1" in message
        assert len(message.splitlines()) == 1


def _raised(error):
    try:
        raise error
    except type(error) as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "broken"),
    [
        (RuntimeError(ASSERT), True),
        (torch.AcceleratorError(FIRST), True),
        (RuntimeError("HIP error: an illegal memory access was encountered"), True),
        (RuntimeError("CUDA error: misaligned address"), True),
        (RuntimeError("CUDA driver error: unspecified launch failure"), True),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), True),
        (RuntimeError("CUDA error: out of memory"), False),
        (RuntimeError("CUDA error: invalid device ordinal"), False),
        (RuntimeError("device-side assert triggered, said the user's own code"), False),
        (ValueError(ASSERT), False),
    ],
)
def test_a_broken_context_is_distinguished_from_other_errors_and_from_a_lack_of_memory(error, broken):
    assert is_broken_context(error) is broken
    assert bool(advice(error)) is broken
    assert not (broken and is_out_of_memory(error))


class Labels(Task):
    """Data whose labels break the context, like labels out of range."""

    def __init__(self) -> None:
        super().__init__(**vars(Data()) | {"loss": lambda outputs, batch: breaks()})


def test_preflight_stops_where_the_context_broke_and_says_what_it_has_not_checked(cuda, tmp_path):
    whole = lean(tmp_path)
    broken = replace(whole, data={"_target_": f"{__name__}.Labels"})
    misfit = replace(whole, batch_size=5000, micro_batch_size=None)

    problems, facts = examine([whole, broken, whole, misfit])

    assert len(problems) == 2
    assert FIRST in problems[0]
    assert "CUDA_LAUNCH_BLOCKING=1" in problems[0]
    assert "2 later points not checked" in problems[1]
    assert len(facts) == 4
    assert [f.data_fingerprint is None for f in facts] == [False, True, True, True]

    gpus[0].broken = None
    alone, _ = examine([broken])
    assert len(alone) == 1
