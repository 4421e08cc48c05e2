"""A study without training: losses, speeds and learning rates by formula, written as runs write them."""

import json
import math
from pathlib import Path

from invented.folders import write_folder

SIZES, SEEDS, LRS = (8, 32, 128, 512), (0, 1, 2), (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
BUDGET = 28_672  # examples
S_MIN, E_MIN = 50.0, 3200.0  # of the steps to the target


def config(**changes):
    return {
        "batch_size": 32,
        "accumulate": None,
        "micro_batch_size": None,
        "lr": 0.02,
        "lr_scaling": "none",
        "reference_batch_size": 32,
        "precision": "fp32",
        "seed": 0,
        "stop_at_target": False,
        "target": {"metric": "val/loss", "value": 0.15},
        "optimizer": {"_target_": "torch.optim.SGD", "momentum": 0.9},
        "data": {"_target_": "batchlab.data.digits.load"},
        "model": {"_target_": "batchlab.models.mlp.MLP", "width": 128},
        "study": "invented",
        **changes,
    }


def write_run(study: Path, run_id: str, record: dict, measurements: list[dict]) -> None:
    lines = [json.dumps({"seq": i, "low": None, "high": None, "n": None, **m}) for i, m in enumerate(measurements)]
    write_folder(study, run_id, {"study": "invented", **record}, lines)


def completed(size: int, seed: int, lr: float = 0.02, *, points: int = 40, **changes) -> tuple[dict, list[dict]]:
    """A run with the best learning rate 0.02 sqrt(B/8), S(B) = S_MIN + E_MIN/B, and steps of 1 ms + 4 us B."""
    wiggle = 1 + 0.02 * math.sin(7.0 * seed + size)
    off = math.log(lr / (0.02 * math.sqrt(size / 8))) ** 2
    steps, per_step = BUDGET // size, (1e-3 + 4e-6 * size) * wiggle
    measured = []

    def add(name, value, examples, **ends):
        at = {"step": examples // size, "examples": examples, "train_seconds": examples / size * per_step}
        measured.append({"name": name, "value": value, **at, **ends})

    target_steps = (S_MIN + E_MIN / size) * wiggle * (1 + off)
    for i in range(points + 1):
        examples = i * (steps * size) // points
        loss = 0.1 + 2.2 * math.exp(-3.8 * examples / size / target_steps) + 0.01 * off
        add("val/loss", loss * wiggle, examples)
        add("train/loss", loss * wiggle - 0.05, examples)
    for i in range(6):
        examples, scale = i * BUDGET // 6, 60.0 * (1 + i)
        noise = {"low": 0.8 * scale, "high": 1.25 * scale, "n": 16}
        add("noise/gradient_variance", scale * wiggle, examples, **noise)
        add("noise/squared_gradient_norm", wiggle, examples, low=0.8, high=1.2, n=16)
    reached = target_steps < steps
    final = {m["name"]: m["value"] for m in measured} | {
        "speed/examples_per_second": size / per_step,
        "speed/seconds_per_step": per_step,
        "memory/peak_resident_bytes": 2.0**20 * (3 + 0.01 * size) * wiggle,
        "memory/saved_for_backward_bytes": 2400.0 * size,
        "sharpness/lambda_max": 2.0 * wiggle * math.log(size),
        "sharpness_at_loss_0.5/lambda_max": 9.0 * wiggle,
        "gap/loss": 0.05 * wiggle,
        "val/accuracy": 0.95 * wiggle,
    }
    record = {
        "status": "completed",
        "config": config(batch_size=size, seed=seed, lr=lr, **changes),
        "seed": seed,
        "batch_size": size,
        "reason": "",
        "n_train": 1437,
        "micro_batch_sizes": [size],
        "accumulate": 1,
        "lr_scaled": lr,
        "steps": steps,
        "examples": steps * size,
        "epochs": 20.0,
        "train_seconds": steps * per_step,
        "wall_seconds": steps * per_step + 1,
        "target": {
            "metric": "val/loss",
            "value": 0.15,
            "reached": reached,
            "step": round(target_steps) if reached else None,
            "examples": round(target_steps) * size if reached else None,
            "train_seconds": target_steps * per_step if reached else None,
            "resolution": 360,
        },
        "final": final,
        "best": {"val/loss": {"value": final["val/loss"], "examples": BUDGET}},
        "started_at": "2026-11-24T10:00:00Z",
        "ended_at": "2026-11-24T10:01:00Z",
    }
    return record, measured


def write_study(study: Path, sizes=SIZES, seeds=SEEDS, lrs=None, **changes) -> Path:
    """Completed runs of every combination (each size's best learning rate if no `lrs`), and one that did not fit."""
    for size in sizes:
        for seed in seeds:
            for lr in lrs or (0.02 * math.sqrt(size / 8),):
                write_run(study, f"bs{size}-lr{lr:g}-s{seed}", *completed(size, seed, lr, **changes))
    too_large = 2 * max(sizes)
    record, _ = completed(too_large, 0)
    record |= {"status": "oom", "reason": "CUDA out of memory", "final": {}, "best": {}, "target": None, "steps": 0}
    write_run(study, f"bs{too_large}-oom", record | {"examples": 0, "train_seconds": 0.0}, [])
    return study
