"""Every option is honoured or refused: each of them, turned, changes what it should in a real run."""

import math
from collections.abc import Callable
from dataclasses import fields

import pytest
import torch
from sweep_runs import Lab

from batchlab.config import RunConfig
from batchlab.errors import BadRequest
from batchlab.records import RunRecord
from batchlab.sweep.identity import run_folder
from batchlab.sweep.points import Point

pytestmark = pytest.mark.long  # a run or two for each option

Look = Callable[[Lab, Point, RunRecord], object]


def final(name: str) -> Look:
    return lambda lab, point, record: record.final[name]


def recorded(name: str) -> Look:
    return lambda lab, point, record: getattr(record, name)


def rates(lab: Lab, point: Point, record: RunRecord) -> object:
    values = lab.values(point, "train/learning_rate")
    return pytest.approx(values[0]), pytest.approx(values[-1])


def cosine(first: float, last: float, part: float) -> float:
    """From `first` to `last` along half a period."""
    return last + (first - last) * (1 + math.cos(math.pi * part)) / 2


def count(name: str) -> Look:
    return lambda lab, point, record: len(lab.values(point, name))


def first(name: str) -> Look:
    """Before the first step, where all runs have the same weights."""
    return lambda lab, point, record: lab.values(point, name)[0]


def where(lab: Lab, point: Point, record: RunRecord) -> object:
    return run_folder(point.config).parent.resolve().relative_to(lab.runs_dir.parent.resolve()).as_posix()


DEVIATES = object()  # from what it is without the override
# 10 steps of 64 examples, unless an override says otherwise
BASE = ("batch_size=64", "examples=640", "eval_every=320", "log_every=64")
# option: override, where to look, and what is to be seen there
CASES: dict[str, list[tuple[str, Look, object]]] = {
    "batch_size": [("batch_size=128", recorded("steps"), 5)],
    "accumulate": [
        ("accumulate=3", recorded("micro_batch_sizes"), (22, 22, 20)),
        ("accumulate=4", final("memory/saved_for_backward_bytes"), DEVIATES),
    ],
    "micro_batch_size": [("micro_batch_size=30", recorded("micro_batch_sizes"), (30, 30, 4))],
    "lr": [("lr=0.5", recorded("lr_scaled"), 0.5), ("lr=0.5", final("val/loss"), DEVIATES)],
    "lr_scaling": [
        ("lr_scaling=linear", recorded("lr_scaled"), 0.04),
        ("lr_scaling=sqrt", recorded("lr_scaled"), pytest.approx(0.02 * 2**0.5)),
        (
            "lr_scaling=surge noise_scale=96 optimizer=adamw",
            recorded("lr_scaled"),
            pytest.approx(0.02 * 2**0.5 * 4 / 5),
        ),
    ],
    "reference_batch_size": [("lr_scaling=linear reference_batch_size=16", recorded("lr_scaled"), 0.08)],
    "noise_scale": [("lr_scaling=noise noise_scale=96", recorded("lr_scaled"), pytest.approx(0.02 * 2 * 4 / 5))],
    "warmup": [
        ("warmup=0.5", rates, (pytest.approx(0.02 * 0.05 / 0.5), pytest.approx(0.02))),
        ("warmup=320", rates, (pytest.approx(0.02 * 0.05 / 0.5), pytest.approx(0.02))),
    ],
    "warmup_from": [
        (
            "warmup=0.5 warmup_from=base lr_scaling=linear",
            rates,
            (pytest.approx(0.02 + 0.02 * 0.1), pytest.approx(0.04)),
        )
    ],
    "schedule": [
        ("schedule=linear", rates, (pytest.approx(0.02 * 0.95), pytest.approx(0.02 * 0.05))),
        (
            "schedule._target_=nets.falling schedule.power=2",
            rates,
            (pytest.approx(0.02 * 0.95**2), pytest.approx(0.02 * 0.05**2)),
        ),
    ],
    "schedule_floor": [
        ("schedule=linear schedule_floor=0.1", rates, (pytest.approx(0.02 * 0.955), pytest.approx(0.02 * 0.145)))
    ],
    "schedule_milestones": [
        ("schedule=step schedule_milestones=[0.5]", rates, (pytest.approx(0.02), pytest.approx(0.002)))
    ],
    "schedule_factor": [("schedule=step schedule_factor=0.5", rates, (pytest.approx(0.02), pytest.approx(0.005)))],
    "schedule_peak_at": [
        (
            "schedule=one_cycle schedule_peak_at=0.05",
            rates,
            (pytest.approx(0.02), pytest.approx(0.02 * cosine(1, 4e-6, 0.9 / 0.95))),
        )
    ],
    "schedule_start_divisor": [
        (
            "schedule=one_cycle schedule_start_divisor=4",
            rates,
            (pytest.approx(0.02 * cosine(0.25, 1, 0.05 / 0.3)), pytest.approx(0.02 * cosine(1, 2.5e-5, 0.65 / 0.7))),
        )
    ],
    "schedule_end_divisor": [
        (
            "schedule=one_cycle schedule_end_divisor=1",
            rates,
            (pytest.approx(0.02 * cosine(0.04, 1, 0.05 / 0.3)), pytest.approx(0.02 * cosine(1, 0.04, 0.65 / 0.7))),
        )
    ],
    "schedule_decay": [
        ("schedule=wsd schedule_decay=0.5", rates, (pytest.approx(0.02), pytest.approx(0.02 * 0.05 / 0.5)))
    ],
    "precision": [("precision=bf16", final("val/loss"), DEVIATES), ("precision=fp16", recorded("steps_skipped"), 0)],
    "budget": [
        ("examples=null epochs=1", recorded("examples"), 1437 // 64 * 64),
        ("examples=null steps=7", recorded("examples"), 7 * 64),
        ("examples=null default_epochs=2", recorded("steps"), 2874 // 64),
    ],
    "target": [
        ("target.value=100", lambda lab, point, record: (record.target or {}).get("examples"), 0),
        (
            "target={metric: val/accuracy, value: 2.0}",
            lambda lab, point, record: (record.target or {}).get("reached"),
            False,
        ),
    ],
    "stop_at_target": [("target.value=100 stop_at_target=true", recorded("steps"), 0)],
    "weight_decay": [("weight_decay=0.1", final("val/loss"), DEVIATES)],
    "clip_norm": [("clip_norm=0.01", final("val/loss"), DEVIATES)],
    "optimizer": [
        ("optimizer=adamw", final("val/loss"), DEVIATES),
        ("optimizer.momentum=0", final("val/loss"), DEVIATES),
        ("optimizer._target_=torch.optim.RMSprop optimizer.alpha=0.9", recorded("status"), "completed"),
    ],
    "data": [("data.train_size=100", recorded("n_train"), 100), ("data=synthetic", recorded("n_train"), 10000)],
    "model": [("model.width=64", recorded("parameters"), 64 * 64 + 64 + 64 * 64 + 64 + 640 + 10)],
    "instruments": [("~instruments.gradient", lambda lab, point, record: "train/gradient_norm" in record.final, False)],
    "seed": [("seed=1", final("val/loss"), DEVIATES)],
    "device": [("device=cpu", lambda lab, point, record: record.environment["device"], "cpu")],
    "threads": [("threads=2", lambda lab, point, record: record.environment["threads"], 2)],
    "deterministic": [("deterministic=true model._target_=nets.Careless", recorded("status"), "failed")],
    "eval_every": [("eval_every=64", count("val/loss"), 11)],
    "eval_batch_size": [("eval_batch_size=50 model._target_=nets.AtMost64", recorded("status"), "completed")],
    "eval_precision": [("precision=bf16 eval_precision=same", first("val/loss"), DEVIATES)],
    "log_every": [("log_every=320", count("train/loss"), 2)],
    "study": [("study=mine", where, "runs/mine")],
    "runs_dir": [("runs_dir=elsewhere", where, "elsewhere/digits-mlp")],
}
# `trust` is refused or honoured before a run: tests/test_targets.py; what a point does when it is stopped:
# tests/sweep/test_standing.py and test_supervisor.py; `hidden` is no option: tests/cli; `workers` changes nothing that
# is recorded: tests/training/test_streaming.py
ELSEWHERE = {
    "trust",
    "timeout",
    "checkpoint_every",
    "checkpoint_seconds",
    "workers",
    "hidden",
    "accept_changed_objective",
}

NETS = """
import torch

def falling(progress, power):
    return (1 - progress) ** power

def below_zero(progress):
    return 0.5 - progress

class Careless(torch.nn.Module):
    '''Uses an operation that has no deterministic kernel.'''
    def __init__(self, num_classes):
        super().__init__()
        self.layer = torch.nn.Linear(64, num_classes)
    def forward(self, x):
        torch.zeros(3).put_(torch.tensor([1]), torch.tensor([2.0]))
        return self.layer(x.flatten(1))

class AtMost64(Careless):
    '''Refuses more than 64 examples at once.'''
    def forward(self, x):
        assert len(x) <= 64, len(x)
        return self.layer(x.flatten(1))
"""


def test_every_option_has_a_case():
    assert {f.name for f in fields(RunConfig)} == set(CASES) | ELSEWHERE


def words(text: str) -> list[str]:
    """The overrides of a case; one in braces holds spaces."""
    return [text] if "{" in text else text.split()


@pytest.mark.parametrize("option", CASES)
def test_a_changed_option_does_what_it_says(option, lab, tmp_path):
    (tmp_path / "nets.py").write_text(NETS)
    base = lab.point(*BASE)
    points = [lab.point(*BASE, *words(case[0])) for case in CASES[option]]
    records = lab.run(base, *points).records
    for (override, read, expected), point, record in zip(CASES[option], points, records[1:], strict=True):
        seen = read(lab, point, record)
        if expected is DEVIATES:
            assert seen != read(lab, base, records[0]), override
        else:
            assert seen == expected, override


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("precision=tf32", "precision=tf32 needs an NVIDIA GPU"),
        ("batch_size=100000", "larger than the training set of 1437 examples: use at most 1437"),
        ("batch_size=1000 examples=500", "examples=500 is less than one batch (batch_size=1000)"),
        ("lr_scaling=adam_sqrt", "this optimizer has none: use optimizer=adamw"),
        ("lr_scaling=surge noise_scale=96", "lr_scaling=surge is a rule for Adam, and this optimizer has no betas"),
        ("optimizer=adamw optimizer.betas=0.9", "optimizer.betas=0.9 is invalid: write a list of numbers"),
        ("optimizer.nesterov=true optimizer.momentum=0", "Nesterov momentum requires a momentum"),
        ("optimizer._target_=torch.optim.Rprop weight_decay=0.1", "has none: use weight_decay=0"),
        ("optimizer._target_=torch.nn.Linear", "is a class, but not an Optimizer"),
        ("model.batch_norm=true micro_batch_size=9 batch_size=64", "cannot train on one"),
        ("target.metric=val/recall target.value=0.9", "use one of val/loss, val/accuracy"),
        ("model._target_=nets.AtMost64 model.wide=3", "unknown key 'model.wide'"),
        ("model._target_=nets.Absent", "has no 'Absent'"),
        ("data.train_size=5000", "data.train_size"),
        ("model._target_=nets.Fails", "RuntimeError: no weights today (nets.py, line"),
        ("data._target_=nets.each_twice", "one loss per term"),
        ("schedule._target_=nets.below_zero", "returned -0.0039"),
        (
            "schedule._target_=nets.falling schedule.powr=2",
            "unknown key 'schedule.powr': did you mean 'schedule.power'",
        ),
        ("schedule=wsd warmup=0.9", "takes 0.9 of the budget, but schedule=wsd leaves the peak at 0.8"),
    ],
)
def test_what_cannot_be_honoured_is_refused_before_anything_is_started(overrides, message, lab, tmp_path):
    (tmp_path / "nets.py").write_text(
        NETS
        + """
class Fails(torch.nn.Module):
    def __init__(self):
        raise RuntimeError("no weights today")

def each_twice():
    from batchlab import Task
    data = torch.randn(50, 64), torch.zeros(50, dtype=torch.long)
    return Task.classification(data, data, loss=lambda out, batch: out[:, :2])
"""
    )
    with pytest.raises(BadRequest) as refusal:
        lab.check(lab.point(*words(overrides)))
    assert message in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_cuda_is_refused_at_once_where_there_is_none(lab):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(BadRequest, match="device=cuda was requested"):
        lab.point("device=cuda")
