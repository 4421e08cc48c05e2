"""`device=auto` chose a GPU on which PyTorch cannot compute: every command about one point continues on the CPU."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from plain_defaults import configured

from batchlab.errors import BadRequest
from batchlab.sweep.checking import check
from batchlab.sweep.find.finding import find
from batchlab.sweep.points import Point
from batchlab.sweep.verifying import verify

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="here the GPU can be used")
COMMANDS: dict[str, Callable[[Point], int]] = {
    "find": lambda point: find([point], memory_limit=None, at_most=2),
    "verify": verify,
    "check": check,
}


def on_a_gpu(folder: Path, *, auto: bool) -> Point:
    """A point whose device the parent took for a GPU; this PyTorch finds no driver."""
    sizes = {"batch_size": 8, "accumulate": 2, "study": "here", "runs_dir": str(folder)}
    return Point(configured(device="cuda", **sizes), auto=auto)


@pytest.mark.parametrize("command", COMMANDS)
def test_it_continues_with_the_cpu_and_says_why(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert COMMANDS[command](on_a_gpu(tmp_path, auto=True)) == 0

    out, err = capsys.readouterr()
    assert err.count("device=auto uses the CPU: ") == 1
    assert "driver" in err
    assert "cuda" not in out


@pytest.mark.parametrize("command", COMMANDS)
def test_who_asks_for_the_gpu_by_name_is_refused(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BadRequest, match=r"device=cuda cannot be used: .*driver.*, or use device=cpu"):
        COMMANDS[command](on_a_gpu(tmp_path, auto=False))
    assert capsys.readouterr().out == ""
