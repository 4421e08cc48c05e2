"""batchlab: how does the batch size affect training, and which one should I use?"""

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from batchlab.errors import BadRequest
from batchlab.science.statistics.counter_random import uniform, uniforms
from batchlab.task import Task

if TYPE_CHECKING:
    from pandas import DataFrame

    from batchlab.records import RunRecord

__version__ = "0.1.0"
__all__ = ["BadRequest", "Task", "__version__", "load_runs", "run_study", "train", "uniform", "uniforms"]


def train(
    config: str | Mapping[str, object] | Sequence[str] = (), *, config_dir: str | PathLike[str] | None = None
) -> "RunRecord":
    """Trains one point in a separate process, as `batchlab train` does, and returns its record.

    `config` holds the options, by the names that `batchlab config` lists: a dict, or the command-line arguments.

        batchlab.train({"batch_size": 64, "model": "cnn", "lr": 0.01})
        batchlab.train({"model": my_net.Net, "model.width": 16, "data": my_net.load})
        batchlab.train("batch_size=64 model=cnn epochs=5")

    A point that has a final result is not trained again. The record says how it ended: `status`, `reason`, `final`.
    A point that failed, diverged or ran out of memory raises no exception; one that could not start raises BadRequest.
    `config_dir` is a folder with your own configs. A script or notebook needs no `__main__` guard, but a class or a
    function must come from a file that can be imported.
    """
    from batchlab.hydra_app import calling

    return calling.point(config, None if config_dir is None else fspath(config_dir))


def run_study(
    config: str | Mapping[str, object] | Sequence[str] = (),
    *,
    over: Mapping[str, Iterable[Any]] = MappingProxyType({}),
    config_dir: str | PathLike[str] | None = None,
) -> "list[RunRecord]":
    """Trains every point of a grid, as `batchlab sweep` does, shows its table and report, and returns the records.

    `over` holds the values of each option that varies; `config` holds the options of all points, or an experiment.

        records = batchlab.run_study({"model": "cnn"}, over={"batch_size": [8, 32, 256], "seed": range(3)})
        batchlab.run_study("batch_size=8,32,256 lr_scaling=linear")
        batchlab.run_study({"experiment": "quick"})
        batchlab.load_runs("runs/digits-cnn")  # the same as a table

    The whole grid is checked first: BadRequest means that nothing was started. The same call again continues the
    study. After Ctrl-C the running step is finished and saved, then KeyboardInterrupt is raised.
    """
    from batchlab.hydra_app import calling

    return calling.study(config, over, None if config_dir is None else fspath(config_dir))


def load_runs(path: str | PathLike[str]) -> "DataFrame":
    """The runs of a study, one row each, however they ended; sorted by batch size, with `run_id` as the index.

    `path` is a study's folder, `runs/digits-mlp`. BadRequest if there is no such folder; a run that cannot be read
    is left out. The columns are those of `results.csv`, nan or None where a run has no value:

    - the options by dotted name, as requested: `lr`, `lr_scaling`, `precision`, `model.width`, `optimizer.momentum`;
      `model`, `data` and `optimizer` are short names; `batch_size`, `micro_batch_size` and `accumulate` (examples per
      step, examples per forward pass, forward passes per step) and `lr_scaled` (peak learning rate) are as used;
    - how it ended: `status` (completed, oom, diverged, failed, killed, timeout, interrupted, running), `reason`,
      `started_at`, `ended_at` (UTC), `attempts`, `resumed_at`, `shared_machine` (if true, its speed and
      memory cannot be compared with those of other runs);
    - what it did: `steps`, `steps_skipped`, `examples`, `remainder` (examples of the budget that make no whole step),
      `epochs`, `train_seconds` (without measuring), `wall_seconds`, `n_train` (examples of the training set),
      `parameters`;
    - `target.metric`, `target.value`, `target.reached` and, if reached, `target.step`, `target.examples` and
      `target.train_seconds` at the first validation at or beyond it; `target.resolution` in examples;
    - `final.<measurement>`, the last value of each: `final.val/loss`, `final.memory/peak_allocated_bytes`, in the units
      that `batchlab export --help` lists; `best.<measurement>.value` and `.examples`, the best and when;
    - `device_model` (the GPU, or the processor of a run on the CPU), `environment.*`, and the fingerprints of data,
      code and weights.
    """
    from batchlab.report.tables.study import read_study

    return read_study(Path(path)).runs
