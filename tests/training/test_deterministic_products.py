"""cuBLAS is deterministic if a point of the grid requires it, in one process with points that do not."""

import os

import pytest
import torch
from simulated_device import simulated_cuda
from torture.tiny import tiny, train

from batchlab.errors import BadRequest
from batchlab.records import RunStatus
from batchlab.training.assembly import prepare_process
from batchlab.worker.preflight import examine

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
PRODUCTS = {torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm}


class ATen:
    """ATen's check before a matrix product (Context.cpp, alertCuBLASConfigNotDeterministic): it reads the
    environment at the first one, and keeps the result for the life of the process."""

    def __init__(self):
        self.is_deterministic = None
        self.products = 0

    def __call__(self, operator):
        if operator.overloadpacket not in PRODUCTS:
            return
        self.products += 1
        if self.is_deterministic is None:
            self.is_deterministic = os.environ.get(WORKSPACE) in (":16:8", ":4096:8")
        if torch.are_deterministic_algorithms_enabled() and not self.is_deterministic:
            raise RuntimeError("Deterministic behavior was enabled with either `torch.use_deterministic_algorithms`...")


@pytest.fixture
def aten(monkeypatch):
    monkeypatch.setenv(WORKSPACE, "to be put back, whatever it was")
    monkeypatch.delenv(WORKSPACE)
    with simulated_cuda() as cuda:
        cuda.gpus[0].before_kernel = ATen()
        yield cuda.gpus[0].before_kernel
    torch.use_deterministic_algorithms(False)


def grid(tmp_path, *deterministic, device="cuda"):
    return [tiny(tmp_path, device=device, deterministic=each) for each in deterministic]


def test_a_violation_of_atens_rule_is_detected(aten, tmp_path, monkeypatch):
    monkeypatch.setattr("batchlab.worker.preflight.allow_deterministic", lambda devices: None)

    problems, _ = examine(grid(tmp_path, False, True))

    assert "Deterministic behavior was enabled" in problems[0]


@pytest.mark.parametrize("each", [(False, True), (True, False), (False, False, True), (True,)], ids=str)
def test_one_preflight_makes_points_of_both_kinds(each, aten, tmp_path):
    problems, facts = examine(grid(tmp_path, *each))

    assert problems == []
    assert len(facts) == len(each)
    assert aten.is_deterministic
    assert aten.products > 0


def test_where_no_point_is_to_be_deterministic_cublas_keeps_its_own_workspace(aten, tmp_path):
    problems, _ = examine(grid(tmp_path, False, False))

    assert problems == []
    assert not aten.is_deterministic


@pytest.mark.parametrize("message", [":16:8", ":4096:8"])
def test_a_users_deterministic_workspace_is_kept(message, aten, tmp_path, monkeypatch):
    monkeypatch.setenv(WORKSPACE, message)

    assert train(tiny(tmp_path, device="cuda", deterministic=True)).status is RunStatus.COMPLETED
    assert os.environ[WORKSPACE] == message


@pytest.mark.parametrize(("message", "sets"), [(":0:0", ":0:0"), ("", "an empty string")], ids=["other", "empty"])
def test_another_workspace_is_refused_in_one_line_if_it_matters(message, sets, aten, tmp_path, monkeypatch):
    monkeypatch.setenv(WORKSPACE, message)
    refusal = (
        "deterministic=true on CUDA needs CUBLAS_WORKSPACE_CONFIG=:4096:8 or :16:8, but the environment sets "
        f"it to {sets}: unset it, or use deterministic=false"
    )

    assert examine(grid(tmp_path, False, True))[0] == [refusal]
    assert examine(grid(tmp_path, True, device="cpu"))[0] == []
    with pytest.raises(BadRequest) as refused:
        prepare_process(tiny(tmp_path, device="cuda", deterministic=True))
    assert str(refused.value) == refusal
