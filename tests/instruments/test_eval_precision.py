"""`eval_precision`: a validation in fp32 for any precision of the run, or in the run's own precision."""

import pytest
import torch
import torch.nn.functional as F
from still_life import run_state

from batchlab import Task
from batchlab.instruments.generalisation.gap import Generalisation
from batchlab.instruments.validation import Validation
from batchlab.training.devices import precision as module
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.precision import Precision

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
OPTIONS = {"eval_every": 10, "eval_batch_size": 7}


def state_in(precision, eval_precision):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 16, generator=generator)
    y = torch.randint(0, 3, (40,), generator=generator)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3))
    state = run_state(model, Task.classification((x[:20], y[:20]), (x[20:], y[20:])), precision=precision)
    state.eval_precision = eval_precision
    return state


def measured(instrument, state):
    return {m.name: m.value for m in instrument(**OPTIONS).measure(state)}


def plain(state, data, cast=None):
    """The loss by PyTorch alone, seven examples at once as `OPTIONS` has it."""
    x, y = data
    losses = []
    for part, labels in zip(x.split(7), y.split(7), strict=True):
        with torch.no_grad(), torch.autocast("cpu", dtype=cast, enabled=cast is not None):
            losses.append(F.cross_entropy(state.model(part), labels, reduction="none").double())
    return torch.cat(losses).mean().item()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_it_is_what_plain_pytorch_evaluates_in_that_precision(precision):
    in_fp32, same = state_in(precision, "fp32"), state_in(precision, "same")

    of_fp32, of_same = (measured(Validation, state)["val/loss"] for state in (in_fp32, same))

    assert of_fp32 == pytest.approx(plain(in_fp32, in_fp32.val), rel=1e-12)
    assert of_same == pytest.approx(plain(same, same.val, TYPES.get(precision)), rel=1e-12)
    assert (of_same != of_fp32) is (precision in TYPES)
    assert of_same == pytest.approx(of_fp32, rel=0.02)  # up to rounding


def test_what_is_compared_with_a_validation_is_taken_in_the_same_precision():
    state = state_in("bf16", "same")

    seen = measured(Generalisation, state)

    assert seen["clean_train/loss"] == pytest.approx(plain(state, state.train, torch.bfloat16), rel=1e-12)


class Noting(CpuDevice):
    """Records which fp32 mode is requested."""

    def __init__(self):
        super().__init__()
        self.requested = []

    def refuse_unless_able(self, precision):
        pass

    def fp32(self, *, tf32):
        self.requested.append(tf32)
        return super().fp32(tf32=False)


@pytest.mark.parametrize(("eval_precision", "tf32"), [("fp32", False), ("same", True)])
def test_of_a_tf32_run_the_same_is_tf32(eval_precision, tf32):
    device = Noting()
    with Precision("tf32", device).evaluation(eval_precision):
        pass

    assert device.requested == [tf32]


def test_fp32_products_are_fp32_in_every_other_validation():
    for name in module.AUTOCAST:
        device = Noting()
        with Precision(name, device).evaluation("same"):
            pass
        assert device.requested == [False]
