"""Runs without training: made by the writers under test, with numbers that are easy to compute."""

from pathlib import Path
from typing import Any

from batchlab.recording.flat_options import flat_options
from batchlab.recording.journal import Journal
from batchlab.recording.run_folder import METRICS, write_record
from batchlab.records import Measurement, RunRecord, RunStatus
from batchlab.tensorboard.events import RunEvents

STARTED = 1_700_000_000.0


def config(**changes: Any) -> dict[str, Any]:
    return {
        "batch_size": 32,
        "accumulate": None,
        "micro_batch_size": None,
        "lr": 0.05,
        "lr_scaling": "linear",
        "precision": "fp32",
        "seed": 0,
        "optimizer": {"_target_": "torch.optim.SGD", "momentum": 0.9, "nesterov": False},
        "data": {"_target_": "batchlab.data.digits.digits", "api_key": "sk-123"},
        "model": {"_target_": "batchlab.models.mlp.MLP", "hidden": [64, 64]},
        "study": "fabricated",
        **changes,
    }


def record(**changes: Any) -> RunRecord:
    batch_size, seed = changes.get("batch_size", 32), changes.get("seed", 0)
    given: dict[str, Any] = {
        "run_id": f"bs{batch_size}-s{seed}",
        "study": "fabricated",
        "status": RunStatus.COMPLETED,
        "config": config(batch_size=batch_size, seed=seed),
        "seed": seed,
        "batch_size": batch_size,
        "micro_batch_sizes": (batch_size,),
        "accumulate": 1,
    }
    return RunRecord(**given | changes)


def points(batch_size: int, last_loss: float) -> list[Measurement]:
    """Five validations of 512 examples each, from a loss of 2, and one reading of the speed at the end."""
    losses = [2.0, 1.5, 1.0, 0.75, last_loss]
    validations = [
        Measurement("val/loss", loss, step=512 * i // batch_size, examples=512 * i, train_seconds=float(i))
        for i, loss in enumerate(losses)
    ]
    end = validations[-1]
    speed = Measurement("speed/examples_per_second", 10.0 * batch_size, end.step, end.examples, end.train_seconds)
    return [*validations, speed]


def write_run(study: Path, made: RunRecord, measurements: list[Measurement]) -> RunRecord:
    """A complete run folder, as `run` writes it."""
    folder = study / made.run_id
    folder.mkdir(parents=True)
    events = RunEvents(
        folder,
        run_id=made.run_id,
        group=f"bs{made.batch_size}",
        hparams=flat_options(made),
        started=STARTED,
        budget=2048,
        declared=made.quantities,
    )
    with Journal(folder / METRICS) as journal:
        for measurement in measurements:
            journal.append(measurement)
            events.add(measurement)
    events.close(made.status)
    write_record(folder, made)
    return made
