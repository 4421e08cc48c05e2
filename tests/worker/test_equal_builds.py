"""Data that differ between two builds are refused before a point trains on them."""

import itertools
import random

import numpy as np
import pytest
import torch
from torture.tiny import tiny, train
from tree_sets import ragged

from batchlab import Task
from batchlab.errors import BadRequest
from batchlab.records import RunStatus
from batchlab.training.devices.cpu import CpuDevice
from batchlab.worker.equal_builds import REBUILD_SECONDS, built_twice, refuse_other_data
from batchlab.worker.preflight import examine

BUILDS = itertools.count()


def drawn(source: str) -> Task:
    """Inputs from a random stream, which this function does not seed."""
    next(BUILDS)
    draw = {
        "numpy": lambda: torch.from_numpy(np.random.rand(20, 6)).float(),
        "own generator": lambda: torch.from_numpy(np.random.default_rng().random((20, 6))).float(),
        "python": lambda: torch.tensor([[random.random() for _ in range(6)] for _ in range(20)]),
        "torch": lambda: torch.rand(20, 6),
        "seeded": lambda: torch.from_numpy(np.random.default_rng(0).random((20, 6))).float(),
    }[source]
    return Task.classification((draw(), torch.arange(20) % 3), (draw(), torch.arange(20) % 3))


def shuffled_examples() -> Task:
    task = ragged()
    return Task(train=random.sample(task.train, 23), val=task.val, collate=task.collate, loss=task.loss)


def config(tmp_path, target, **keys):
    return tiny(tmp_path, data={"_target_": f"test_equal_builds.{target}", **keys}, model={"norm": False})


@pytest.mark.parametrize("source", ["numpy", "own generator", "python"])
def test_data_drawn_without_a_seed_are_refused_before_the_first_point(tmp_path, source):
    problems, _ = examine([config(tmp_path, "drawn", source=source)])

    assert len(problems) == 1
    assert problems[0].startswith("data._target_=test_equal_builds.drawn gives other data when it is built again")
    assert "np.random.default_rng(0)" in problems[0]


@pytest.mark.parametrize("source", ["seeded", "torch"])
def test_data_that_are_the_same_in_each_process_are_not(tmp_path, source):
    """PyTorch's own stream starts in the same state in each process."""
    assert examine([config(tmp_path, "drawn", source=source)])[0] == []


def test_examples_of_a_collated_set_in_another_order_are_refused(tmp_path):
    with pytest.raises(BadRequest, match="gives other data when it is built again"):
        built_twice(config(tmp_path, "shuffled_examples"), CpuDevice())


def test_the_second_build_changes_no_random_stream(tmp_path):
    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    seeded = config(tmp_path, "drawn", source="torch")
    before = torch.get_rng_state()
    torch.rand(20, 6), torch.rand(20, 6)  # what one build draws
    once = states()
    torch.set_rng_state(before)
    built_twice(seeded, CpuDevice())

    assert states() == once


def test_what_takes_long_to_build_is_built_once_and_compared_when_a_point_builds_it(tmp_path):
    slow, ticks = config(tmp_path, "drawn", source="numpy"), itertools.count(0.0, REBUILD_SECONDS + 1)
    before = next(BUILDS)
    data = built_twice(slow, CpuDevice(), clock=lambda: next(ticks))

    assert next(BUILDS) - before == 2  # one build
    refuse_other_data(slow, data, data.fingerprint)
    refuse_other_data(slow, data, None)
    with pytest.raises(BadRequest, match="gives other data when it is built again"):
        refuse_other_data(slow, data, "0123456789abcdef")


def test_a_point_with_other_data_than_the_preflight_fails_and_says_why(tmp_path, monkeypatch):
    import torture.tiny as tiny_points

    identity = tiny_points.RunIdentity
    monkeypatch.setattr(
        tiny_points, "RunIdentity", lambda *a, **k: identity(*a, **k, data_fingerprint="0123456789abcdef")
    )

    record = train(tiny(tmp_path))

    assert record.status is RunStatus.FAILED
    assert "gives other data when it is built again" in record.reason
    assert record.steps == 0
