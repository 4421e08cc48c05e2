"""batchlab: how does the batch size affect training, and which one should I use?"""

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from batchlab.errors import BadRequest
from batchlab.science.counter_random import uniform
from batchlab.task import Task

if TYPE_CHECKING:
    from pandas import DataFrame

__version__ = "0.1.0"
__all__ = ["BadRequest", "Task", "__version__", "load_runs", "uniform"]


def load_runs(path: str | PathLike[str]) -> "DataFrame":
    """The runs of a study, a row each, whatever became of them; by batch size, `run_id` is the index.

    `path` is a study's folder, `runs/digits-mlp`. BadRequest where there is no such folder; a run that cannot be read
    is left out. The columns are those of `results.csv`, nan or None where a run has none:

    - the knobs by their dotted names, as asked: `lr`, `lr_scaling`, `precision`, `model.width`, `optimizer.momentum`;
      `model`, `data` and `optimizer` are short names; `batch_size`, `micro_batch_size` and `accumulate` (examples per
      step, examples per forward pass, forward passes per step) are what came of it, `lr_scaled` is the peak rate;
    - how it ended: `status` (completed, oom, diverged, failed, killed, timeout, interrupted, running), `reason`,
      `started_at`, `ended_at` (UTC), `attempts`, `resumed_at`, `shared_machine` (its speed and memory compare with
      nothing where that is true);
    - what it did: `steps`, `steps_skipped`, `examples`, `remainder` (examples of the budget that make no whole step),
      `epochs`, `train_seconds` (measuring not charged), `wall_seconds`, `n_train` (training examples in the data),
      `parameters`;
    - `target.metric`, `target.value`, `target.reached` and, where it was, `target.step`, `target.examples` and
      `target.train_seconds` at the first validation at or beyond it; `target.resolution` in examples;
    - `final.<measurement>`, the last value of each: `final.val/loss`, `final.memory/peak_allocated_bytes`;
      `best.<measurement>.value` and `.examples`, the best and where it was;
    - `environment.*`, and the fingerprints of data, code and weights.
    """
    from batchlab.report.study import read_study

    return read_study(Path(path)).runs
