"""A run follows its schedule as a plain loop does, and a user's own schedule is checked before anything is started."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torture.tiny import SGD, stop_at, tiny, train

from batchlab.config import to_dict
from batchlab.errors import BadRequest
from batchlab.recording.code_files import code_files, code_targets
from batchlab.training import assembly
from batchlab.training.data.batches import row
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.updates.own_schedule import own_schedule

STEPS, PEAK = 10, 0.05
MIDDLES = [(step + 0.5) / STEPS for step in range(STEPS)]
TRUST = ["test_own_schedule"]
CALLS = itertools.count()


def power(progress, exponent=1.0):
    return (1 - progress) ** exponent


def of_a_tensor(progress):
    return torch.tensor(0.5 + progress)


def needs_a_key(progress, exponent):
    return progress**exponent


def negative_late(progress):
    return 0.9 - progress


def infinite_at_the_start(progress):
    return math.inf if progress == 0 else 1.0


def fails_at_the_start(progress):
    return 1 / progress


def nothing(progress):
    """Returns None."""


def text(progress):
    return "0.5"


def counts(progress):
    return next(CALLS)


def without_progress():
    return 1.0


def only_keys(*, progress=0.0):
    return progress


class Class:
    pass


def own(name, **keys):
    return {"_target_": f"test_own_schedule.{name}", **keys}


# What each step's learning rate is, as a multiple of the peak, worked out from the fraction of the budget.
RUNS = {
    "linear": ({"schedule": "linear", "schedule_floor": 0.2}, [0.2 + 0.8 * (1 - p) for p in MIDDLES]),
    "cosine": (
        {"schedule": "cosine", "schedule_floor": 0.1},
        [0.1 + 0.9 * math.cos(math.pi * p / 2) ** 2 for p in MIDDLES],
    ),
    "step": (
        {"schedule": "step", "schedule_milestones": [0.3, 0.8], "schedule_factor": 0.5},
        [1.0] * 3 + [0.5] * 5 + [0.25] * 2,
    ),
    "one_cycle": (
        {"schedule": "one_cycle", "schedule_peak_at": 0.4, "schedule_start_divisor": 4.0, "schedule_end_divisor": 10.0},
        [
            0.25 + 0.75 * math.sin(math.pi * p / 0.8) ** 2
            if p < 0.4
            else 0.025 + 0.975 * math.cos(math.pi * (p - 0.4) / 1.2) ** 2
            for p in MIDDLES
        ],
    ),
    "wsd": (
        {"schedule": "wsd", "schedule_decay": 0.4, "schedule_floor": 0.1, "warmup": 0.2},
        [0.25, 0.75, 1, 1, 1, 1, 0.8875, 0.6625, 0.4375, 0.2125],
    ),
    "own": ({"schedule": own("power", exponent=2), "trust": TRUST}, [(1 - p) ** 2 for p in MIDDLES]),
    "own after a warm-up": (
        {"schedule": own("power"), "trust": TRUST, "warmup": 0.5},
        [0.1, 0.3, 0.5, 0.7, 0.9, 0.9, 0.7, 0.5, 0.3, 0.1],
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_trains_to_the_weights_of_a_plain_loop_at_these_learning_rates(name, tmp_path):
    options, multiples = RUNS[name]
    config = tiny(tmp_path, model={"norm": False}, optimizer=SGD, dtype="float64", lr=PEAK, **options)
    session, plain = (assembly.assemble(config, assembly.build_data(config, CpuDevice())) for _ in range(2))
    model, (inputs, labels) = plain.state.model, plain.state.train
    optimizer = torch.optim.SGD(model.parameters(), lr=PEAK, momentum=0.9)
    for step, multiple in enumerate(multiples):
        optimizer.param_groups[0]["lr"] = PEAK * multiple
        index = row(40, config.seed, step * 4, 4)
        optimizer.zero_grad()
        F.cross_entropy(model(inputs[index]), labels[index]).backward()
        optimizer.step()

    list(session.train())

    for ours, theirs in zip(session.state.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_run_with_a_schedule_of_ones_own_resumes_to_the_same_bits(tmp_path):
    asked = {"schedule": own("power", exponent=2), "trust": TRUST}
    whole = train(tiny(tmp_path / "whole", **asked))
    resumed = tiny(tmp_path / "resumed", **asked)
    assert train(resumed, stopping=stop_at(5)).status == "interrupted"

    assert train(resumed).weights_fingerprint == whole.weights_fingerprint


def test_a_number_of_pytorch_or_numpy_is_a_number(tmp_path):
    curve = own_schedule(tiny(tmp_path, schedule=own("of_a_tensor"), trust=TRUST))

    assert curve is not None
    assert curve(0.25) == 0.75
    assert type(curve(0.25)) is float


def test_its_file_is_code_of_the_run(tmp_path):
    config = to_dict(tiny(tmp_path, schedule=own("power"), trust=TRUST))

    assert "test_own_schedule.py" in code_files(code_targets(config))


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (own("negative_late"), r"returned -0.00\d* at progress 0.90\d*: it must return a finite number of at least 0"),
        (own("infinite_at_the_start"), "returned inf at progress 0: it must return a finite number of at least 0"),
        (own("fails_at_the_start"), r"fails at progress 0: ZeroDivisionError: .*\(test_own_schedule.py, line \d+"),
        (own("nothing"), "returned None at progress 0: it must return a finite number"),
        (own("text"), "returned '0.5' at progress 0: it must return a finite number"),
        (own("counts"), "at progress 0: it must depend on the progress and its keys only"),
        (own("without_progress"), r"takes no progress: its first argument must be the progress in \[0, 1\]"),
        (own("only_keys"), "takes no progress"),
        (own("power", exponnt=2), "unknown key 'schedule.exponnt': did you mean 'schedule.exponent'"),
        (own("power", progress=0.5), "schedule.progress cannot be set: it is the progress"),
        (own("power", exponent=own("text")), "schedule.exponent contains a _target_"),
        (own("needs_a_key"), r"requires the argument 'exponent': add schedule.exponent=..."),
        (own("Class"), "schedule._target_=test_own_schedule.Class is a class: name a function"),
        (own("powr"), "has no 'powr': did you mean 'power'"),
        ({"_target_": "os.getenv"}, r"is a function of os, which is outside this folder: wrap it in your own file"),
    ],
)
def test_what_is_no_schedule_is_refused_in_one_sentence(schedule, message, tmp_path):
    with pytest.raises(BadRequest, match=message) as refusal:
        own_schedule(tiny(tmp_path, schedule=schedule, trust=TRUST))

    assert str(refusal.value).isprintable()


def test_a_number_that_the_grid_has_missed_ends_the_run_with_the_same_message(tmp_path):
    curve = own_schedule(tiny(tmp_path, schedule=own("between"), trust=TRUST))

    with pytest.raises(BadRequest, match=r"returned nan at progress 0.05: it must return a finite number"):
        curve(0.05)


def between(progress):
    return math.nan if progress == 0.05 else 1.0
