"""The generalisation gap, and the loss on the hardest validation examples."""

from collections.abc import Iterator

import torch
from torch import Tensor

from batchlab.errors import BadRequest
from batchlab.instruments.instrument import Instrument, check_count
from batchlab.records import Measurement
from batchlab.records import quantities as table
from batchlab.science.statistics.samples import difference, sample_mean, sample_share, tail_mean
from batchlab.science.statistics.uncertainty import Interval
from batchlab.training.data.batches import length, subset
from batchlab.training.data.order import stream_seed
from batchlab.training.passes.evaluation import ByExample, Sums, by_example, validated
from batchlab.training.state import RunState

HARDEST = 0.1
NEEDS_EXAMPLES = "needs the loss of each example, which this task does not give: left out"


class Generalisation(Instrument):
    """The model on as many training as validation examples, both in eval mode and fp32, and the gap between them.

    `clean_train/loss` and `clean_train/<metric>`: means over a part of the training set that is as large as the
    validation set, the same in all runs on this data. Examples with a wrong label are left out, because validation has
    none and they would dominate the gap. Intervals are for the mean of the whole training set.
    `gap/loss` and `gap/<metric>`: how much worse validation is, so a gap is positive for both losses and accuracies;
    not measured for a metric if the task does not say whether higher is better.
    `val/hardest_decile_loss`: the mean over the tenth of the validation examples with the largest current loss (for
    tokens: mean over the example's tokens): the tail of the model's losses, not a fixed set. Left out if the loss
    of an example is not known (a scalar loss, or terms of a collated batch), and then the losses have no intervals.

    `every` is in examples; default: every fourth validation, whose pass it shares.
    """

    quantities = table.GENERALISATION

    def __init__(self, *, eval_every: int, eval_batch_size: int, every: int | None = None) -> None:
        check_count("generalisation.every", every)
        self.every: int | None = every or 4 * eval_every
        self.eval_batch_size = eval_batch_size
        self._said = False  # what is left out

    def measure(self, state: RunState) -> Iterator[Measurement]:
        val = validated(state, self.eval_batch_size)
        index, population = clean_examples(state)
        trained = by_example(state, subset(state.train, index), self.eval_batch_size)
        for name, seen in trained.items():
            on_train = interval(seen, population)
            yield _measured(state, f"clean_train/{name}", on_train)
            higher = False if name == "loss" else state.task.higher_is_better.get(name)
            if higher is not None:
                on_val = interval(val[name])
                gap = difference(on_train, on_val) if higher else difference(on_val, on_train)
                yield _measured(state, f"gap/{name}", gap)
        if isinstance(loss := val["loss"], ByExample):
            yield _measured(state, "val/hardest_decile_loss", tail_mean(loss.means, HARDEST))
        elif not self._said:
            self._said = True
            state.note(f"val/hardest_decile_loss {NEEDS_EXAMPLES}")


def clean_examples(state: RunState) -> tuple[Tensor, int]:
    """Training examples with correct labels, at most as many as the validation set has; and out of how many.

    Depends on the two sizes and on which labels are wrong, but not on a run's seed or batch size.
    """
    n = length(state.train)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(stream_seed("clean train", n)))
    if state.task.corrupted is not None:
        order = order[~is_wrong(state.task.corrupted, n)[order]]
    return order[: length(state.val)], len(order)


def is_wrong(corrupted: Tensor, n_train: int) -> Tensor:
    """Whether each training example was given a wrong label, from a task's `corrupted`: (n_train,) bool on the CPU.
    Integers are converted as well: `~` of an integer is another integer, which would be used as an index.
    """
    if corrupted.shape != (n_train,):
        raise BadRequest(
            f"the task's corrupted has shape {tuple(corrupted.shape)} for {n_train} training examples: it must be "
            f"({n_train},)"
        )
    return corrupted.cpu().bool()


def interval(seen: Sums, population: int | None = None) -> Interval:
    """The mean over terms with its 95% interval: exact for right and wrong predictions, else Student's t; no interval
    if the values of single examples are not known."""
    if not isinstance(seen, ByExample):
        return Interval(seen.mean, None, None, len(seen.sums))
    if seen.is_share:
        return sample_share(int(seen.sums.sum()), len(seen.sums), population=population)
    return sample_mean(seen.sums, seen.counts, population=population)


def _measured(state: RunState, name: str, seen: Interval) -> Measurement:
    return state.measurement(name, seen.value, low=seen.low, high=seen.high, n=seen.n)
