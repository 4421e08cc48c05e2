"""Tests that need a CUDA device: points of every precision, each in a separate process, and resumed runs."""

import itertools
from collections.abc import Mapping
from pathlib import Path

import pytest
from sweep_runs import Lab

from batchlab.hydra_app import compose
from batchlab.records import RunIdentity, RunRecord
from batchlab.sweep.points import Point
from batchlab.sweep.processes.server import WarmServer
from batchlab.training.devices.cuda import visible_devices
from batchlab.worker.execute import run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not visible_devices(), reason="needs CUDA, and PyTorch finds no CUDA device here"),
]
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
SIZES = (1024, 512, 64, 8)  # large sizes run first: in a shared process their peak would count for the small ones too


class Points:
    """Points on CUDA, each run once: records and measurements by batch size and precision."""

    def __init__(self, server: WarmServer, folder: Path) -> None:
        self.lab = Lab(server, folder)
        requested = [(256, precision) for precision in PRECISIONS] + [(size, "fp32") for size in SIZES]
        self.points: Mapping[tuple[int, str], Point] = {
            (size, precision): self.lab.point(
                "device=cuda", f"batch_size={size}", f"precision={precision}", "default_epochs=1"
            )
            for size, precision in requested
        }
        records = self.lab.run(*self.points.values()).records
        self.records: Mapping[tuple[int, str], RunRecord] = dict(zip(self.points, records, strict=True))

    def highest(self, size: int, name: str, precision: str = "fp32") -> float:
        return max(self.lab.values(self.points[size, precision], name))


@pytest.fixture(scope="module")
def points(server: WarmServer, tmp_path_factory: pytest.TempPathFactory) -> Points:
    """All points that these tests use, in one sweep, because starting it takes longest."""
    return Points(server, tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_point_of_each_precision_completes_and_is_measured(precision: str, points: Points) -> None:
    record = points.records[256, precision]

    assert record.status == "completed", record.reason
    assert record.config["device"] == "cuda"
    assert record.config["precision"] == precision
    assert record.environment["device_name"]
    allocated = points.highest(256, "memory/peak_allocated_bytes", precision)
    assert 0 < allocated <= points.highest(256, "memory/peak_reserved_bytes", precision)
    losses = points.lab.values(points.points[256, precision], "val/loss")
    assert losses[-1] < losses[0]


def test_peak_memory_is_of_the_point_and_not_of_the_one_before(points: Points) -> None:
    assert points.highest(8, "memory/peak_allocated_bytes") < points.highest(1024, "memory/peak_allocated_bytes")


def test_saved_for_backward_grows_with_the_batch(points: Points) -> None:
    """The oracle: activations are proportional to the examples of a step; saved weights are a constant."""
    name = "memory/saved_for_backward_bytes"
    assert 1 < points.highest(512, name) / points.highest(64, name) <= 8


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_run_that_was_stopped_resumes(precision: str, tmp_path: Path) -> None:
    words = ("device=cuda", "batch_size=64", "epochs=2", f"precision={precision}", "model.dropout=0.1")
    config, identity = compose(words), RunIdentity("one", "study", "group")
    looks = itertools.count()

    whole = run(config, tmp_path / "whole", identity)
    stopped = run(config, tmp_path / "resumed", identity, stopping=lambda: next(looks) >= 20)
    resumed = run(config, tmp_path / "resumed", identity)

    assert (stopped.status, resumed.status, resumed.resumed_at) == ("interrupted", "completed", (20,))
    assert resumed.steps == whole.steps
    # Kernels may sum in different orders.
    assert resumed.final["val/loss"] == pytest.approx(whole.final["val/loss"], rel=1e-2)
