"""Whatever happens to one point stays in that point."""

import json
import signal

import pytest
import torch

from batchlab.host.exit_status import classify
from batchlab.records import RunStatus
from batchlab.sweep.identity import group_id, run_folder, run_id
from batchlab.training.devices.out_of_memory import is_out_of_memory

pytestmark = pytest.mark.long  # a sweep for each fault

BASE = ("batch_size=64", "examples=640")
HOSTILE = """
import os, signal, sys, torch

class Net(torch.nn.Module):
    '''Well-behaved for three steps; then what `fault` says.'''
    def __init__(self, fault=None):
        super().__init__()
        self.layer, self.fault, self.steps = torch.nn.Linear(64, 10), fault, 0
    def forward(self, x):
        self.steps += self.training
        if self.steps > 3:
            if self.fault == "kill": os.kill(os.getpid(), signal.SIGKILL)
            if self.fault == "segv": os.kill(os.getpid(), signal.SIGSEGV)
            if self.fault == "exit": sys.exit(7)
            if self.fault == "_exit": os._exit(9)
            if self.fault == "raise": raise ValueError("line one\\nline two")
            if self.fault == "oom" : raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            if self.fault == "patience": raise RuntimeError("out of memory of patience")
            if self.fault == "print": print("x" * 1000, "\\x1b[31m", flush=True)
        return self.layer(x.flatten(1))
"""
ENDINGS = {
    "kill": (RunStatus.KILLED, "SIGKILL"),
    "segv": (RunStatus.FAILED, "SIGSEGV"),
    "exit": (RunStatus.FAILED, "called sys.exit(7)"),
    "_exit": (RunStatus.FAILED, "exit code 9"),
    "raise": (RunStatus.FAILED, "ValueError: line one"),
    "oom": (RunStatus.OOM, "CUDA out of memory. Tried to allocate 2 GiB"),
    "patience": (RunStatus.FAILED, "out of memory of patience"),
    "print": (RunStatus.COMPLETED, ""),
}


def test_a_fault_is_recorded_as_what_it_is_and_the_sweep_continues(lab, tmp_path):
    (tmp_path / "hostile.py").write_text(HOSTILE)
    points = [lab.point(*BASE, "model._target_=hostile.Net", f"model.fault={fault}") for fault in ENDINGS]
    outcome = lab.run(*points)

    assert outcome.exit_code == 3
    for point, record, (status, reason) in zip(points, outcome.records, ENDINGS.values(), strict=True):
        assert (record.status, reason in record.reason) == (status, True), record.reason
        on_disk = json.loads((run_folder(point.config) / "record.json").read_text())
        assert on_disk["status"] == status
        assert "\n" not in record.reason
    raised = run_folder(points[list(ENDINGS).index("raise")].config) / "worker.log"
    assert 'raise ValueError("line one' in raised.read_text()


def test_final_results_are_not_run_again_and_what_failed_is_kept_until_it_is_retried(lab, tmp_path):
    (tmp_path / "hostile.py").write_text(HOSTILE)
    faults = ["oom", "raise", "null"]

    def points(*more):
        return [lab.point(*BASE, "model._target_=hostile.Net", f"model.fault={fault}", *more) for fault in faults]

    first = lab.run(*points())
    assert (first.skipped, first.exit_code) == (0, 3)
    second = lab.run(*points())
    assert (second.skipped, second.exit_code) == (3, 3)
    third = lab.run(*points("retry=[failed]"))
    assert (third.skipped, third.exit_code) == (2, 3)
    assert [record.attempts for record in third.records] == [1, 2, 1]
    assert third.records[0] == first.records[0]
    assert [record.attempts for record in lab.run(*points("force=true")).records] == [2, 3, 2]


def test_the_spectator_hears_of_a_point_from_its_start_to_its_end(lab):
    from sweep_runs import Silent

    spectator = Silent()
    lab.run(lab.point(*BASE), lab.point(*BASE, "seed=1"), spectator=spectator)
    assert spectator.reported[:3] == ["start batch_size=64", "expect 640", "finish completed"]
    assert spectator.reported[3] == "start seed=1"
    assert spectator.updates


def test_accumulated_and_whole_steps_end_at_the_same_validation_loss(lab):
    points = [lab.point("batch_size=64", "default_epochs=10", f"accumulate={n}", "seed=1") for n in (1, 3, 4)]
    whole, ragged, even = (record.final["val/loss"] for record in lab.run(*points).records)
    assert abs(whole - ragged) < 1e-4
    assert abs(whole - even) < 1e-4
    assert whole < 0.4  # it has learnt something, or equality would mean nothing


def test_a_run_is_the_same_to_the_bit_when_it_is_run_again_elsewhere(lab):
    again = [lab.point(*BASE, "model=cnn", f"study={name}") for name in ("one", "two")]
    lab.run(*again)
    series = [
        [(m.name, m.value) for m in lab.metrics(p) if not m.name.startswith(("speed/", "memory/peak"))] for p in again
    ]
    assert series[0] == series[1]
    assert len(series[0]) > 20


def test_batch_sizes_are_read_equally_often_and_start_from_the_same_weights(lab):
    points = [lab.point(f"batch_size={size}", "examples=2560", "eval_every=512") for size in (8, 32, 256)]
    lab.run(*points)
    looks = [[(m.examples, m.value) for m in lab.metrics(point) if m.name == "val/loss"] for point in points]
    assert (
        [at for at, _ in looks[0]]
        == [at for at, _ in looks[1]]
        == [at for at, _ in looks[2]]
        == list(range(0, 2561, 512))
    )
    assert looks[0][0] == looks[1][0] == looks[2][0]


def test_diverged_points_are_final_results(lab):
    points = [lab.point("batch_size=32", "lr=1e9", f"optimizer={name}") for name in ("sgd", "adamw")]
    outcome = lab.run(*points)
    assert [record.status for record in outcome.records] == [RunStatus.DIVERGED] * 2
    assert outcome.exit_code == 0
    assert "at step" in outcome.records[0].reason
    assert "lr 1e+09" in outcome.records[0].reason


# identity


def test_what_means_the_same_has_the_same_id(lab):
    def name(*overrides: str) -> str:
        return run_id(lab.point(*overrides).config)

    assert (
        name("batch_size=64") == name("batch_size=64", "accumulate=1") == name("batch_size=64", "micro_batch_size=64")
    )
    assert name("batch_size=64", "accumulate=4") == name("batch_size=64", "micro_batch_size=16")
    assert name() == name("study=other", "runs_dir=other") == name("default_epochs=20.0") == name("lr=2e-2")
    different = ["seed=1", "lr=0.1", "batch_size=31", "threads=2", "model.width=64", "epochs=19", "precision=bf16"]
    assert len({name(), *map(name, different)}) == 8


def test_seeds_share_a_group_and_nothing_else_does(lab):
    groups = [group_id(lab.point(*overrides).config) for overrides in (("seed=0",), ("seed=7",), ("lr=0.1",))]
    assert groups[0] == groups[1] != groups[2]


# endings


@pytest.mark.parametrize(
    ("exitcode", "stopped", "kills", "status"),
    [
        (-signal.SIGKILL, False, 0, RunStatus.KILLED),
        (-signal.SIGKILL, False, 1, RunStatus.OOM),
        (-signal.SIGKILL, True, 1, RunStatus.INTERRUPTED),
        (-signal.SIGSEGV, False, 0, RunStatus.FAILED),
        (-signal.SIGBUS, False, 1, RunStatus.FAILED),
        (3, False, 0, RunStatus.FAILED),
        (0, False, 0, RunStatus.FAILED),
    ],
)
def test_a_death_without_a_record_is_classified(exitcode, stopped, kills, status):
    assert classify(exitcode, stopped_by_us=stopped, oom_kills=kills)[0] is status


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("anything"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be ..."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried"),
            True,
        ),
        (RuntimeError("out of memory of patience"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("CUDA out of memory"), False),
    ],
)
def test_out_of_memory_is_distinguished_from_everything_else(error, expected):
    assert is_out_of_memory(error) is expected


def test_a_real_refusal_of_the_allocator_is_out_of_memory():
    with pytest.raises(RuntimeError) as refusal:
        torch.empty(2**55, dtype=torch.uint8)
    assert is_out_of_memory(refusal.value)


# the warm server


def test_a_child_begins_with_everything_slow_imported_and_no_device_touched(lab, tmp_path):
    (tmp_path / "nosy.py").write_text(
        "import gc, sys, torch\n"
        "class Net(torch.nn.Linear):\n"
        "    def __init__(self):\n"
        "        super().__init__(64, 10)\n"
        "        slow = ['torch._dynamo', 'sklearn.datasets', 'torch.fx.experimental.symbolic_shapes']\n"
        "        print('MISSING', [name for name in slow if name not in sys.modules], torch.cuda.is_initialized())\n"
        "        print('COLLECTS', gc.isenabled(), 'FROZEN', gc.get_freeze_count() > len(gc.get_objects()))\n"
        "    def forward(self, x):\n"
        "        return super().forward(x.flatten(1))\n"
    )
    point = lab.point(*BASE, "model._target_=nosy.Net")
    lab.run(point)
    log = (run_folder(point.config) / "worker.log").read_text()
    assert "MISSING [] False" in log
    assert "COLLECTS True FROZEN True" in log
