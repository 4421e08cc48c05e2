"""The share of wrong labels that the model has memorised."""

from collections.abc import Iterator

import torch
from torch import Tensor

from batchlab.errors import BadRequest
from batchlab.instruments.generalisation.gap import is_wrong
from batchlab.instruments.instrument import Instrument, check_count
from batchlab.records import Measurement
from batchlab.records import quantities as table
from batchlab.science.statistics.samples import sample_share
from batchlab.task import Batch, Task
from batchlab.training.data.batches import gather, length, subset
from batchlab.training.data.order import stream_seed
from batchlab.training.data.residence import prepare_set
from batchlab.training.data.trees import rebuilt, tensors
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.passes.evaluation import by_example, right_answers
from batchlab.training.state import RunState

CPU = CpuDevice()


class Memorisation(Instrument):
    """The model's predictions for training examples with a wrong label, in eval mode and fp32.

    `clean_train/corrupted_accuracy`: the share predicted as the wrong label, which beyond chance shows memorisation
    (Zhang et al. 2017, arXiv:1611.03530). `clean_train/corrupted_true_accuracy`: the share predicted as the correct
    label nevertheless, if the task provides it (`uncorrupted`). Intervals are exact, and for all examples that might
    have been given a wrong label.
    Uses at most as many examples as the validation set has, the same in all runs on this data. Needs the task's
    `corrupted` with a wrong label in it, as `data.label_noise` makes them, and its metric `accuracy` with one 0 or 1
    for each example: a task without them is refused, or with `required=False` not measured.
    `every` is in examples; default: every fourth validation.
    """

    quantities = table.MEMORISATION

    def __init__(
        self, *, task: Task, eval_every: int, eval_batch_size: int, every: int | None = None, required: bool = True
    ) -> None:
        check_count("memorisation.every", every)
        self.every: int | None = every or 4 * eval_every
        self.eval_batch_size = eval_batch_size
        wrong = task.corrupted is not None and bool(task.corrupted.any())
        self.corrupted = task.corrupted if wrong and "accuracy" in task.higher_is_better else None
        if required and self.corrupted is None:
            raise BadRequest(
                "instruments.memorisation needs wrong labels in the training set and the metric 'accuracy', but this "
                "task does not have both: add data.label_noise=0.1 (or give the Task corrupted=... and "
                "higher_is_better={'accuracy': True}), or remove the instrument with ~instruments.memorisation"
            )

    def measure(self, state: RunState) -> Iterator[Measurement]:
        if self.corrupted is None:
            return
        index = corrupted_examples(self.corrupted, length(state.train), length(state.val))
        measured = {"corrupted_accuracy": subset(state.train, index)}
        if state.task.uncorrupted is not None:
            measured["corrupted_true_accuracy"] = _with_right_labels(state, index)
        for name, batch in measured.items():
            right = right_answers(by_example(state, batch, self.eval_batch_size))
            share = sample_share(int(right.sum()), len(right))
            yield state.measurement(f"clean_train/{name}", share.value, low=share.low, high=share.high, n=share.n)


def corrupted_examples(corrupted: Tensor, n_train: int, at_most: int) -> Tensor:
    """Indices of at most `at_most` training examples with a wrong label; does not depend on a run's seed."""
    order = torch.randperm(n_train, generator=torch.Generator().manual_seed(stream_seed("corrupted", n_train)))
    return order[is_wrong(corrupted, n_train)[order]][:at_most]


def _with_right_labels(state: RunState, index: Tensor) -> Batch:
    right = prepare_set(state.task.uncorrupted, CPU, name="uncorrupted")
    if length(right) != length(state.train):
        raise BadRequest(
            f"the task's uncorrupted has {length(right)} examples but its train has {length(state.train)}: they must "
            "be the same examples"
        )
    chosen = gather(right, index)
    return rebuilt(chosen, [t.to(state.device.torch_device) for t in tensors(chosen)])
