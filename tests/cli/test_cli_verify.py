"""`batchlab verify` answers in words and by its exit code, refuses what it cannot compare, and writes nothing."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from batchlab.cli.main import main
from batchlab.sweep.processes.server import WarmServer

PLANTED = """
import torch
from batchlab import Task


class Net(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))


class Fails(Net):
    def forward(self, x):
        if len(x) > 8:
            raise RuntimeError("no more than 8 at once")
        return super().forward(x)


class Ends(Net):
    def forward(self, x):
        if len(x) > 8:
            import os
            os._exit(7)
        return super().forward(x)


def load(divide=True):
    x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()

    def loss(outputs, batch):
        losses = torch.nn.functional.cross_entropy(outputs, batch[1], reduction="none")
        return losses / len(losses) if divide else losses

    print("user code prints")
    return Task.classification((x, y), (x, y), loss=loss)
"""
OWN = ("model._target_=planted.Net", "data._target_=planted.load", "device=cpu", "batch_size=20", "accumulate=4")

Verify = Callable[..., tuple[int, str, str]]


@pytest.fixture
def verify(
    server: WarmServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Verify:
    """Runs the word in an empty folder that holds `planted.py` only; its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "planted.py").write_text(PLANTED)
    server.warm_up()

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["verify", *arguments])
        said = capfd.readouterr()
        assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == ["planted.py"]
        return code, said.out, said.err

    return run


def test_a_model_that_accumulates_exactly_is_reported_with_exit_code_0(verify: Verify) -> None:
    code, out, _ = verify(*OWN, "data.divide=false")

    assert code == 0
    assert out.startswith("Net on load: 5 batches of 20 examples, whole and as 4 micro-batches of 5, at the initial")
    assert "The same gradient up to rounding" in out
    assert "user code prints" not in out
    row = next(line.split() for line in out.splitlines() if line.startswith("float64"))
    assert float(row[2]) < 1e-12


def test_what_is_not_the_same_is_named_with_exit_code_1(verify: Verify) -> None:
    code, out, _ = verify(*OWN)

    assert code == 1
    assert "Not the same gradient" in out
    assert "Cause: for the same outputs, the loss of an example depends on the other examples of its batch" in out
    assert "it is already averaged, or divided by their number" in out
    row = next(line.split() for line in out.splitlines() if line.startswith("float64"))
    assert float(row[2]) == pytest.approx(3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("model=cnn",), "verify compares the gradient of a batch .*: add accumulate=4 or micro_batch_size="),
        (
            ("accumulate=2", "batch_size=8,32"),
            "a grid of 2 points, and `batchlab verify` takes one point: give each option",
        ),
        (("accumulate=2", "--dry-run"), "dry_run is for runs, and `batchlab verify` makes none: leave it out"),
        (("accumulate=2", "--force"), "force is for runs"),
        (("accumulate=2", "--retry=failed"), "retry is for runs"),
        (("accumulate=2", "hydra/launcher=joblib"), "hydra/launcher=... is for runs"),
        (("accumulate=3", "batch_size=5000", "device=cpu"), "batch_size=5000 is larger than the training set of 1437"),
        (
            ("accumulate=2", "model.ghost_batch=8", "device=cpu"),
            "model.ghost_batch=8 has no effect, because this model has no BatchNorm layer",
        ),
        ((*OWN, "model._target_=planted.Fails"), "RuntimeError: no more than 8 at once$"),
        (
            (*OWN, "model._target_=planted.Ends"),
            r"comparing the gradients failed: its process ended with exit code 7 without a result",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(arguments: tuple[str, ...], said: str, verify: Verify) -> None:
    code, out, err = verify(*arguments)

    assert code == 2
    assert out == ""
    (line,) = err.splitlines()
    assert re.search(said, line), line
