"""Probes in real processes under a real limit: where memory runs out, what is no lack of it, and what is counted."""

import pytest
import torch

from batchlab.science.memory.largest_fit import Outcome
from batchlab.sweep.find.finding import PLACEHOLDER_SIZE
from batchlab.sweep.find.probing import Prober
from batchlab.training.devices.out_of_memory import is_ambiguous, is_kernel_limit, is_out_of_memory
from batchlab.worker.probing import HEADROOM

MIB = 2**20
NETS = """
import os
import signal

import torch
from torch import nn

from batchlab import Task

BIG = 2**30  # a GiB of bytes: more than any limit here


def big():
    return torch.empty(BIG, dtype=torch.uint8)


class Net(nn.Module):
    '''Takes memory where it is told to, when more than 32 examples come at once.'''

    where = ""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        if len(x) > 32 and self.where == ("forward" if self.training else "validation"):
            big()
        x = x.flatten(1)
        if len(x) > 32 and self.where == "backward":
            x = Holds.apply(self.layer(x))
            return x
        return self.layer(x)


class Holds(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        big()
        return gradient


class Forward(Net):
    where = "forward"


class Backward(Net):
    where = "backward"


class Validation(Net):
    where = "validation"


class NeverValidates(Net):
    def forward(self, x):
        return super().forward(x) if self.training else big()


class Building(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("table", big())


class Hungry(torch.optim.SGD):
    '''Takes memory in its third step: state may be made late.'''

    steps = 0

    def step(self, closure=None):
        self.steps += 1
        if self.steps == 3:
            big()
        return super().step(closure)


class Buggy(Net):
    def forward(self, x):
        if len(x) > 32:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        return super().forward(x)


class TooManyBlocks(Net):
    def forward(self, x):
        if len(x) > 32:
            raise RuntimeError("CUDA error: invalid configuration argument")
        return super().forward(x)


class NoEngine(Net):
    def forward(self, x):
        if len(x) > 32:
            raise RuntimeError("Unable to find a valid cuDNN algorithm to run convolution")
        return super().forward(x)


class Dies(Net):
    def forward(self, x):
        if len(x) > 32:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().forward(x)


class FiveAtMost(Net):
    def forward(self, x):
        if len(x) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(x)


class Hangs(Net):
    def forward(self, x):
        while True:
            pass


class Counted(nn.Module):
    '''1 MiB for each example, saved for backward, and as much again as it is made.'''

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(10))

    def forward(self, x):
        wide = x.flatten(1)[:, :1].expand(-1, 2**18).contiguous()
        return wide.exp().sum(1, keepdim=True) * self.scale


def tiny():
    x = torch.linspace(0, 1, 5 * 64).reshape(5, 64)
    y = torch.arange(5) % 2
    return Task.classification(train=(x, y), val=(x[:3], y[:3]), model_args={"num_classes": 10})
"""


@pytest.fixture
def probe(lab, tmp_path):
    """Tries a size of the config that the overrides describe, with a limit in MiB."""
    (tmp_path / "nets.py").write_text(NETS)

    def probe(size: int, *overrides: str, limit: float = 200.0, seconds: float = 0.0):
        prober = Prober(
            lab.point(*PLACEHOLDER_SIZE, *overrides).config,
            lab.server,
            limit=int(limit * MIB),
            exact=True,
            log=tmp_path / "probe.log",
        )
        return prober(size, seconds)

    return probe


@pytest.mark.parametrize(
    ("overrides", "phase"),
    [
        (["model._target_=nets.Forward"], "forward"),
        (["model._target_=nets.Backward"], "backward"),
        (["model._target_=nets.Net", "optimizer._target_=nets.Hungry"], "optimizer"),
        (["model._target_=nets.NeverValidates"], "validation"),
        (["model._target_=nets.Building"], "building"),
        (["model._target_=nets.Backward", "accumulate=4"], "backward"),
        (["model._target_=nets.NeverValidates", "precision=bf16"], "validation"),
    ],
)
def test_memory_that_runs_out_is_reported_with_its_phase(probe, overrides, phase):
    found = probe(40, *overrides)

    assert (found.outcome, found.phase) == (Outcome.OOM, phase)
    assert "can't allocate memory: you tried to allocate 1073741824 bytes" in found.reason


def test_a_validation_that_fits_in_pieces_is_no_matter_of_the_size(probe):
    assert probe(40, "model._target_=nets.Validation").fits


@pytest.mark.parametrize(
    ("model", "outcome", "reported"),
    [
        ("Buggy", Outcome.FAILED, "RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
        ("TooManyBlocks", Outcome.KERNEL_LIMIT, "RuntimeError: CUDA error: invalid configuration argument"),
        ("NoEngine", Outcome.UNCLEAR, "Unable to find a valid cuDNN algorithm"),
        ("Dies", Outcome.FAILED, "its process was ended by SIGSEGV"),
    ],
)
def test_what_is_no_lack_of_memory_is_not_taken_for_one(probe, model, outcome, reported):
    assert probe(32, f"model._target_=nets.{model}").outcome is Outcome.FITS

    found = probe(33, f"model._target_=nets.{model}")

    assert found.outcome is outcome
    assert reported in found.reason


def test_a_probe_that_hangs_is_ended_at_its_timeout(probe):
    found = probe(4, "model._target_=nets.Hangs", "timeout=1")

    assert (found.outcome, found.reason) == (Outcome.FAILED, "took longer than timeout=1 s")


def test_the_limit_is_real_and_the_bytes_are_those_of_the_tensors(probe):
    """The model holds two tensors of 1 MiB per example at once: 100 take 200 MiB, and are refused what is less.

    The sizes are large because a process's own pages come and go by 1 MiB or two between two equal probes.
    """
    some = probe(100, "model._target_=nets.Counted", limit=600)
    more = probe(200, "model._target_=nets.Counted", limit=600)
    assert some.fits
    assert more.fits
    assert some.allowed_bytes == 570 * MIB
    assert (more.peak_bytes - some.peak_bytes) / 100 == pytest.approx(2 * MIB, rel=0.02)

    needs = some.peak_bytes / MIB / (1 - HEADROOM)
    assert probe(100, "model._target_=nets.Counted", limit=1.03 * needs).fits
    assert probe(100, "model._target_=nets.Counted", limit=0.97 * needs).outcome is Outcome.OOM


def test_three_steps_run_and_more_where_they_are_quick(probe):
    assert len(probe(4, "model._target_=nets.Net").step_seconds) == 2  # after the first
    assert len(probe(4, "model._target_=nets.Net", seconds=60.0).step_seconds) == 20


@pytest.mark.parametrize("size", [1, 3, 5])
def test_counting_the_bytes_passes_no_more_than_was_tried(probe, size):
    assert probe(size, "model._target_=nets.FiveAtMost").fits


def test_data_of_fewer_examples_is_repeated(probe):
    found = probe(64, "model._target_=nets.Net", "data._target_=nets.tiny", "accumulate=2")

    assert found.fits
    assert (found.n_train, found.n_val, found.size, found.accumulate) == (5, 3, 64, 2)


@pytest.mark.parametrize(
    ("text", "kernel"),
    [
        ("Expected canUse32BitIndexMath(input) && canUse32BitIndexMath(output) to be true, but got false.", True),
        ("CUDA error: invalid configuration argument\nCUDA kernel errors might be ...", True),
        ("input tensor must fit into 32-bit index math", True),
        ("nonzero is not supported for tensors with more than INT_MAX elements", True),
        ("integer out of range", True),
        ("CUDA error: device-side assert triggered", False),
        ("index out of range in self", False),
    ],
)
def test_a_limit_of_a_kernel_is_distinguished_from_a_lack_of_memory(text, kernel):
    assert is_kernel_limit(RuntimeError(text)) is kernel
    assert not is_out_of_memory(RuntimeError(text))


def test_a_library_that_finds_no_engine_is_ambiguous():
    assert is_ambiguous(RuntimeError("Unable to find an engine to execute this computation"))
    assert not is_ambiguous(torch.OutOfMemoryError("CUDA out of memory"))
