"""Tables: columns standardised by the training rows alone, and a split that is the same for every run."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from batchlab import BadRequest, Task
from batchlab.data.label_noise import with_wrong_labels

SPLIT_SEED, NOISE_SEED = 20250301, 20250302


@dataclass(frozen=True)
class Table:
    """Rows of numbers, and the target of each."""

    name: str  # in messages: `data.name=iris`
    inputs: NDArray[np.float64]  # (rows, columns)
    measured: NDArray[np.bool_]  # (columns,) those to standardise to mean 0 and variance 1; not the 0 and 1 of a word
    targets: NDArray[Any]  # classes (rows,) from 0, or numbers (rows,) or (rows, outputs)
    classes: int | None  # None: regression


def task_of(table: Table, *, val_share: float, train_size: int | None, label_noise: float) -> Task:
    """Classification or regression on a table's rows, in a fixed order; the last rows are for validation.

    Means and deviations are those of the training rows. Targets that are numbers are standardised too, so that always
    predicting the mean has a loss of 1; the metric `absolute_error` is in their unit.
    """
    train, val = _split(table, val_share, train_size)
    mean, deviation = _scale(table.inputs[train])
    scaled = np.where(table.measured, (table.inputs - mean) / deviation, table.inputs)
    inputs = torch.from_numpy(scaled.astype(np.float32))
    if table.classes is None:
        if label_noise:
            raise BadRequest(
                f"data.label_noise={label_noise} is invalid: {table.name} predicts numbers, not labels; use 0"
            )
        return _regression(table, inputs, train, val)
    labels = torch.from_numpy(table.targets.astype(np.int64))
    seen, right = inputs[train], labels[train]
    noisy, corrupted = with_wrong_labels(right, label_noise, classes=table.classes, seed=NOISE_SEED)
    return Task.classification(
        train=(seen, noisy),
        val=(inputs[val], labels[val]),
        corrupted=corrupted,
        uncorrupted=(seen, right),
        # All classes of the table: a rare class may be in neither part.
        model_args={"num_classes": table.classes, "input_shape": tuple(inputs.shape[1:])},
    )


def _regression(table: Table, inputs: Tensor, train: NDArray[np.int64], val: NDArray[np.int64]) -> Task:
    mean, deviation = _scale(table.targets[train])
    targets = torch.from_numpy(((table.targets - mean) / deviation).astype(np.float32))
    unit = torch.from_numpy(np.atleast_1d(deviation).astype(np.float32))

    def metrics(outputs: Tensor, batch: Any) -> dict[str, Tensor]:
        apart = (outputs.reshape(batch[1].shape) - batch[1]).abs().reshape(len(batch[1]), -1)
        return {"absolute_error": (apart * unit.to(apart.device)).mean(dim=1)}

    return Task.regression(
        train=(inputs[train], targets[train]),
        val=(inputs[val], targets[val]),
        metrics=metrics,
        higher_is_better={"absolute_error": False},
    )


def _split(table: Table, val_share: float, train_size: int | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows to train on and those to validate on, in a fixed order."""
    number = isinstance(val_share, int | float) and not isinstance(val_share, bool)
    if not number or not 0 < val_share < 1:
        raise BadRequest(
            f"data.val_share={val_share} is invalid: give the share of the rows kept for validation, between 0 and 1, "
            "such as data.val_share=0.2"
        )
    rows = len(table.inputs)
    of_train = rows - max(1, round(rows * val_share))
    if of_train < 1:
        raise BadRequest(f"{table.name} has {rows} rows, of which data.val_share={val_share} leaves none to train on")
    count = of_train if train_size is None else train_size
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= of_train:
        raise BadRequest(
            f"data.train_size={train_size} is invalid: {table.name} has {of_train} rows for training, "
            f"use data.train_size=1 to data.train_size={of_train}, or null for all"
        )
    # NumPy's legacy generator: the only one whose numbers are guaranteed not to change (NEP 19).
    order = np.random.RandomState(SPLIT_SEED).permutation(rows).astype(np.int64)
    return order[:count], order[of_train:]


def _scale(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each column; a constant column gets deviation 1, and becomes 0."""
    mean, deviation = np.asarray(values.mean(axis=0)), np.asarray(values.std(axis=0))
    # Because of rounding the deviation of a million equal numbers is not 0.
    return mean, np.where(deviation > 1e-12 * np.abs(mean), deviation, 1.0)
