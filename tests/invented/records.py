"""Records of runs that never ran, and the command line as a process."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from batchlab.records import RunRecord, RunStatus

REPOSITORY = Path(__file__).resolve().parents[2]
MLP = {"_target_": "batchlab.models.mlp.MLP", "width": 128, "depth": 2}
CNN = {"_target_": "batchlab.models.cnn.CNN", "width": 16}
CONFIG = {
    "lr": 0.05,
    "lr_scaling": "none",
    "reference_batch_size": 32,
    "precision": "fp32",
    "seed": 0,
    "data": {"_target_": "batchlab.data.digits.load"},
    "model": MLP,
    "stop_at_target": False,
}
BUDGET = 28_740  # 20 epochs of 1,437 examples


def record(batch_size: int, config: dict[str, Any] | None = None, **fields: Any) -> RunRecord:
    """A completed run of `batch_size`, whose speed is 1,000 examples/s times its batch size."""
    merged = CONFIG | {"batch_size": batch_size} | (config or {})
    steps = BUDGET // batch_size
    values: dict[str, Any] = {
        "run_id": f"b{batch_size}-{merged['seed']}",
        "study": "digits-mlp",
        "status": RunStatus.COMPLETED,
        "config": merged,
        "seed": merged["seed"],
        "batch_size": batch_size,
        "accumulate": 1,
        "lr_scaled": merged["lr"],
        "steps": steps,
        "examples": steps * batch_size,
        "remainder": BUDGET - steps * batch_size,
        "train_seconds": BUDGET / (1000 * batch_size),
        "final": {
            "speed/examples_per_second": 1000.0 * batch_size,
            "memory/peak_resident_bytes": 2.0**20 * batch_size,
            "val/loss": 0.15298,
            "val/accuracy": 0.9545,
        },
        "ended_at": "2026-11-23T23:56:00Z",
    }
    return RunRecord(**values | fields)


def environment(**changes: str) -> dict[str, str]:
    """The environment of this process, with the checkout on the path and without terminal settings."""
    quiet = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "CI")}
    return quiet | {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "100"} | changes


def batchlab(*arguments: str, folder: Path, **changes: str) -> "subprocess.CompletedProcess[str]":
    """`batchlab ARGUMENTS...` as a separate process, in `folder`."""
    return subprocess.run(
        [sys.executable, "-m", "batchlab.cli.main", *arguments],
        cwd=folder,
        env=environment(**changes),
        capture_output=True,
        text=True,
        check=False,
    )
