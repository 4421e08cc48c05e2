"""What only a CUDA device can show: a point of each precision, through the command line, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA, and PyTorch sees no CUDA device here"),
]


def sweep(*words: str, cwd: Path) -> list[tuple[dict[str, Any], dict[str, list[float]]]]:
    """Runs `batchlab sweep` on CUDA in `cwd`; each run's record and its measurements by name, by batch size."""
    command = [sys.executable, "-m", "batchlab.cli.main", "sweep", "device=cuda", "default_epochs=1", *words]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = []
    for path in cwd.glob("runs/*/*/record.json"):
        measured: dict[str, list[float]] = {}
        for line in (path.parent / "metrics.jsonl").read_text().splitlines():
            measurement = json.loads(line)
            measured.setdefault(measurement["name"], []).append(float(measurement["value"]))
        runs.append((json.loads(path.read_text()), measured))
    return sorted(runs, key=lambda run: run[0]["batch_size"])


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_a_point_of_each_precision_completes_and_is_measured(precision: str, tmp_path: Path) -> None:
    if precision in ("tf32", "bf16") and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip(
            f"{precision} needs compute capability 8.0, and this device has {torch.cuda.get_device_capability()}"
        )

    ((record, measured),) = sweep("batch_size=256", f"precision={precision}", cwd=tmp_path)

    assert record["status"] == "completed", record["reason"]
    assert record["config"]["device"] == "cuda"
    assert record["config"]["precision"] == precision
    assert max(measured["memory/peak_allocated_bytes"]) > 0
    assert max(measured["memory/peak_reserved_bytes"]) >= max(measured["memory/peak_allocated_bytes"])
    assert measured["val/loss"][-1] < measured["val/loss"][0]


def test_peak_memory_is_of_the_point_and_not_of_the_one_before(tmp_path: Path) -> None:
    """The large point runs first: in one process its peak would be the small one's too."""
    (small, small_measured), (large, large_measured) = sweep("batch_size=1024,8", cwd=tmp_path)

    assert (small["batch_size"], large["batch_size"]) == (8, 1024)
    peaks = [max(measured["memory/peak_allocated_bytes"]) for measured in (small_measured, large_measured)]
    assert peaks[0] < peaks[1]


def test_saved_for_backward_grows_with_the_batch(tmp_path: Path) -> None:
    """The oracle: activations are proportional to the examples of a step; weights saved too are a constant."""
    (_, small), (_, large) = sweep("batch_size=64,512", cwd=tmp_path)

    name = "memory/saved_for_backward_bytes"
    assert 1 < max(large[name]) / max(small[name]) <= 8


RESUMED = """
import itertools, json, sys
from pathlib import Path
from batchlab.hydra_app import compose
from batchlab.run import Identity, run
from batchlab.sweep.identity import group_id, run_id

config = compose(["device=DEVICE", "batch_size=64", "epochs=2", *sys.argv[1:]])
identity = Identity(run_id(config), "s", group_id(config))
whole = run(config, Path("whole"), identity)
asked = itertools.count()
stopped = run(config, Path("resumed"), identity, stopping=lambda: next(asked) >= 20)
resumed = run(config, Path("resumed"), identity)
found = {"stopped": stopped.status, "resumed_at": resumed.resumed_at, "steps": [whole.steps, resumed.steps]}
found |= {"loss": [whole.final["val/loss"], resumed.final["val/loss"]]}
found |= {"weights": [whole.weights_fingerprint, resumed.weights_fingerprint]}
print(json.dumps(found))
"""


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_run_that_was_stopped_goes_on(precision: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", RESUMED.replace("DEVICE", "cuda"), f"precision={precision}", "model.dropout=0.1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["stopped"], found["resumed_at"]) == ("interrupted", [20])
    assert found["steps"][0] == found["steps"][1]
    assert found["loss"][1] == pytest.approx(found["loss"][0], rel=1e-2)  # kernels need not add up in one order
