"""Studies made only of tables, without a disk: runs of given batch sizes and seeds, and their measurements."""

from pathlib import Path
from typing import Any

import pandas as pd

from batchlab.report.tables.study import Study

N_TRAIN, BUDGET = 1437, 28_672
DATA, MODEL = "batchlab.data.digits.load", "batchlab.models.mlp.MLP"
MEASUREMENT = ("run_id", "name", "step", "examples", "train_seconds", "value", "low", "high", "n")


def run(
    batch_size: int,
    seed: int,
    measured: dict[str, float] | None = None,
    *,
    curve: dict[str, list[tuple[int, float]]] | None = None,
    requested: dict[str, Any] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """One run: `measured` at its start (names that begin with `start:`) or its end, `curve` as (step, value) pairs."""
    steps = BUDGET // batch_size
    config = {
        "batch_size": batch_size,
        "seed": seed,
        "lr": 0.02,
        "lr_scaling": "none",
        "reference_batch_size": 32,
        "warmup": 0.0,
        "schedule": "constant",
        "accumulate": None,
        "micro_batch_size": None,
        "precision": "fp32",
        "epochs": 20.0,
        "target.value": None,
        "data._target_": DATA,
        "data.train_size": None,
        "data.label_noise": 0.0,
        "model._target_": MODEL,
        "model.width": 128,
        **(requested or {}),
    }
    row = {
        **{name: value for name, value in config.items() if name not in ("epochs", "micro_batch_size")},
        "micro_batch_size": batch_size // (config["accumulate"] or 1),
        "accumulate": config["accumulate"] or 1,
        "lr_scaled": config["lr"],
        "n_train": N_TRAIN,
        "parameters": 26_122,
        "status": "completed",
        "shared_machine": False,
        "steps": steps,
        "examples": steps * batch_size,
        "remainder": BUDGET - steps * batch_size,
        "epochs": steps * batch_size / N_TRAIN,
        "train_seconds": 1.0,
        "overrides": "",
        "target.metric": "val/loss",
        "target.reached": None,
        "target.step": None,
        "target.examples": None,
        "target.train_seconds": None,
        "target.resolution": 360.0,
        **fields,
    }
    points = [(name, step, value) for name, pairs in (curve or {}).items() for step, value in pairs]
    for name, value in (measured or {}).items():
        points.append((name.removeprefix("start:"), 0 if name.startswith("start:") else row["steps"], value))
    losses = [value for name, step, value in points if name == "val/loss" and step > 0]
    row["best.val/loss.value"] = min(losses, default=None)
    return {"row": row, "requested": config, "points": points, "batch_size": batch_size}


def reached(steps: float, batch_size: int, value: float = 0.25) -> dict[str, Any]:
    """The fields of a run that reached its target after so many steps."""
    return {
        "target.value": value,
        "target.reached": True,
        "target.step": round(steps),
        "target.examples": round(steps) * batch_size,
    }


def missed(value: float = 0.25) -> dict[str, Any]:
    """The fields of a run that did not reach it."""
    return {"target.value": value, "target.reached": False}


def study(runs: list[dict[str, Any]], name: str = "fabricated") -> Study:
    """The study of these runs."""
    ids = [f"bs{entry['batch_size']}-run{i}" for i, entry in enumerate(runs)]
    lines = [
        (run_id, name, step, step * entry["batch_size"], 0.01 * step, value, float("nan"), float("nan"), float("nan"))
        for run_id, entry in zip(ids, runs, strict=True)
        for name, step, value in entry["points"]
    ]
    rows, requested = (
        pd.DataFrame([entry[part] for entry in runs], index=pd.Index(ids, name="run_id", dtype=object), dtype=kind)
        for part, kind in (("row", None), ("requested", object))
    )
    table = pd.DataFrame(lines, columns=list(MEASUREMENT)).astype(dict.fromkeys(MEASUREMENT[2:], float))
    return Study(name, Path("runs") / name, rows, table, (), requested.where(requested.notna(), None))
