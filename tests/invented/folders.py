"""Studies with known answers, written as run folders with plain json, without the product's own writers."""

import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "accumulate": None,
    "micro_batch_size": None,
    "lr": 0.05,
    "lr_scaling": "none",
    "reference_batch_size": 32,
    "precision": "fp32",
    "optimizer": {"_target_": "torch.optim.SGD", "momentum": 0.9},
    "data": {"_target_": "batchlab.data.digits.load"},
    "model": {"_target_": "batchlab.models.mlp.MLP", "width": 128, "depth": 2},
    "eval_every": 512,
    "runs_dir": "runs",
}


def line(seq: int, name: str, value: Any, step: int, batch_size: int, seconds: float = 0.0, **more: Any) -> str:
    """A line of `metrics.jsonl`."""
    where = {"step": step, "examples": step * batch_size, "train_seconds": seconds}
    return json.dumps({"seq": seq, "name": name, "value": value, **where, "low": None, "high": None, "n": None, **more})


def write_folder(study: Path, run_id: str, record: Mapping[str, Any], lines: Iterable[str]) -> None:
    """A run folder with these files."""
    folder = study / run_id
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps({"run_id": run_id, "study": study.name, **record}))
    (folder / "metrics.jsonl").write_text("".join(f"{text}\n" for text in lines))


def write_run(
    study: Path,
    batch_size: int,
    seed: int = 0,
    lr: float = 0.05,
    *,
    target: Mapping[str, Any] | None = None,
    final: Mapping[str, float] | None = None,
    curve: Iterable[tuple[str, int, float, float]] = (),  # name, step, train seconds, value
    config: Mapping[str, Any] | None = None,
    **fields: Any,
) -> str:
    """One run folder; returns its run id."""
    options = CONFIG | {"batch_size": batch_size, "seed": seed, "lr": lr} | dict(config or {})
    run_id = fields.pop("run_id", f"b{batch_size}-lr{lr:g}-s{seed}-{zlib.crc32(json.dumps(options).encode())}")
    record = {
        "status": "completed",
        "config": options,
        "seed": seed,
        "batch_size": batch_size,
        "micro_batch_sizes": [batch_size],
        "accumulate": 1,
        "lr_scaled": lr,
        "n_train": 1437,
        "steps": 100,
        "examples": 100 * batch_size,
        "train_seconds": 1.0,
        "target": target,
        "final": final or {},
    }
    lines = [line(seq, name, value, step, batch_size, at) for seq, (name, step, at, value) in enumerate(curve)]
    write_folder(study, run_id, record | fields, lines)
    return str(run_id)


def reached(step: int, batch_size: int, seconds: float = 1.0) -> dict[str, Any]:
    """A target that was reached at `step`."""
    where = {"step": step, "examples": step * batch_size, "train_seconds": seconds}
    return {"metric": "val/loss", "value": 0.15, "reached": True, **where, "resolution": 512}


MISSED = {"metric": "val/loss", "value": 0.15, "reached": False, "resolution": 512}
