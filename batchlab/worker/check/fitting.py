"""Whether data, model and loss fit together: number formats, shapes, labels, metrics."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from batchlab.records.quantities import OF_VALIDATION, VALIDATION_LOSS
from batchlab.training.data.batches import slices
from batchlab.training.passes.contract import DTYPES, METRICS, ONE_PER_TERM, first_breach
from batchlab.training.passes.contract_passes import validation_pass
from batchlab.training.user_errors import in_the_users_words
from batchlab.worker.check.data_sample import Sample, described, shapes
from batchlab.worker.check.findings import Finding, finding_of, ok, wrong
from batchlab.worker.check.passes import Passes


def number_formats(passes: Passes) -> Iterator[Finding]:
    """Whether weights and data count in fp32, as the knob `precision` takes for granted."""
    breach = first_breach(DTYPES, passes.seen)
    yield finding_of(breach) if breach else ok("dtype", "float32 weights, no float64 in the data")


def forward_and_loss(passes: Passes) -> Iterator[Finding]:
    """Whether a batch passes, the labels are what the loss takes, and the loss is one number per term."""
    seen, batch = passes.seen, shapes(passes.batch)
    if seen.failed == "forward":
        yield wrong(
            "shapes",
            f"a batch of {batch} does not pass: {seen.words}",
            "the first axis is the example; make the model's first layer fit the others (model_args of the Task, such "
            "as input_shape, are offered to the model), or give the Task a forward=...",
        )
        return
    given = described([leaf for leaf in tree_leaves(seen.outputs) if isinstance(leaf, Tensor)])
    yield from (found := list(_labels(passes)))
    if found:
        return
    if seen.failed == "loss":
        yield wrong(
            "loss",
            f"outputs {given} for a batch of {batch}: {seen.words}",
            "the outputs and the targets must have the shapes and types that the task's loss takes",
        )
        return
    breach = first_breach(ONE_PER_TERM, seen)
    yield finding_of(breach) if breach else ok("shapes", f"outputs {given} for {seen.examples} examples")


def _labels(passes: Passes) -> Iterator[Finding]:
    """What is wrong with the classes that the task's `labels` gives; nothing where they fit, or there are none."""
    task, outputs = passes.losses.task, passes.seen.outputs
    if task.labels is None:
        return
    whole = isinstance(task.train, Mapping | tuple | list)
    try:
        train = task.labels(task.train if whole else passes.batch)
    except (Exception, SystemExit) as error:
        yield wrong("labels", in_the_users_words(error), "Task(labels=...) gives each example's class, (examples,)")
        return
    if train.is_floating_point() or train.dtype is torch.bool or train.dim() != 1:
        yield wrong(
            "labels",
            f"they are {described([train])}, and a class is an integer",
            "give class indices, (examples,) int64: y.long(), one-hot labels by y.argmax(1)",
        )
        return
    low, high = int(train.min()), int(train.max())
    classes = outputs.shape[1] if isinstance(outputs, Tensor) and outputs.dim() == 2 else None
    if low < 0 or (classes is not None and high >= classes):
        yield wrong(
            "labels",
            f"they go from {low} to {high}, and the model has {classes if classes is not None else 'no'} outputs",
            "classes are 0, 1, ..., one output each: number them so (torch.unique(y, return_inverse=True)[1]), and "
            "give the model as many outputs",
        )
    elif not whole:
        return  # of a few examples no more can be said
    elif low == high and len(train) > 1:
        yield wrong("labels", f"every example has class {low}: there is nothing to tell apart", "look at the labels")
    elif low > 0:
        yield wrong(
            "labels",
            f"they go from {low} to {high}, and no example has class 0: they seem to be counted from {low}",
            f"classes are 0, 1, ...: y - {low}",
        )


def metrics(passes: Passes, sample: Sample) -> Iterator[Finding]:
    """Whether each metric is one value per term, as a loss is, and known which way is better."""
    try:
        seen = validation_pass(passes.losses, next(slices(sample.val, passes.seen.examples)))
    except (Exception, SystemExit) as error:
        yield wrong("metrics", in_the_users_words(error), "Task(metrics=...) returns a dict of tensors, (terms,) each")
        return
    breach = first_breach(METRICS, seen)
    yield (
        finding_of(breach)
        if breach
        else ok("metrics", ", ".join([VALIDATION_LOSS.name, *(OF_VALIDATION + name for name in seen.metrics)]))
    )
