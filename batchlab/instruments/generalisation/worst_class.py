"""The accuracy on the class with the lowest accuracy."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from batchlab.errors import BadRequest
from batchlab.instruments.instrument import Instrument, check_count
from batchlab.records import Measurement
from batchlab.records import quantities as table
from batchlab.science.statistics.samples import smallest_share
from batchlab.task import Task
from batchlab.training.data.batches import slices
from batchlab.training.data.collated import content
from batchlab.training.passes.evaluation import right_answers, validated
from batchlab.training.state import RunState


class WorstClass(Instrument):
    """`val/worst_class_accuracy`: the lowest accuracy of any class in the validation set.

    The interval allows for selecting the minimum over the classes; `n` is the number of examples of that class.
    Classes without examples are left out. Needs the task's `labels`, and its metric `accuracy` with one 0 or 1 for
    each example: a task without them is refused, or with `required=False` not measured.
    `every` is in examples; default: every fourth validation, whose pass it shares.
    """

    quantities = table.WORST_CLASS

    def __init__(
        self, *, task: Task, eval_every: int, eval_batch_size: int, every: int | None = None, required: bool = True
    ) -> None:
        check_count("worst_class.every", every)
        self.every: int | None = every or 4 * eval_every
        self.eval_batch_size = eval_batch_size
        self._classes: NDArray[np.int64] | None = None  # of the validation examples; read once
        self.labels = task.labels if "accuracy" in task.higher_is_better else None
        if required and self.labels is None:
            raise BadRequest(
                "instruments.worst_class needs the class of each example and the metric 'accuracy', but this task does "
                "not have both: give the Task labels=... and higher_is_better={'accuracy': True}, or remove the "
                "instrument with ~instruments.worst_class"
            )

    def measure(self, state: RunState) -> Iterator[Measurement]:
        if self.labels is None:
            return
        right = right_answers(validated(state, self.eval_batch_size))
        if self._classes is None:
            at_once = state.eval_at_most or self.eval_batch_size
            labels = torch.cat([self.labels(content(batch)) for batch in slices(state.val, at_once)])
            _, self._classes = np.unique(labels.cpu().numpy(), return_inverse=True)
        hits = np.bincount(self._classes, weights=right).astype(np.int64)
        worst = smallest_share(hits, np.bincount(self._classes))
        yield state.measurement("val/worst_class_accuracy", worst.value, low=worst.low, high=worst.high, n=worst.n)
