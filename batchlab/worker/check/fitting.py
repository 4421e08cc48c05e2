"""Whether data, model and loss fit together: dtypes, shapes, labels, metrics."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from batchlab.errors import BadRequest
from batchlab.records.quantities import OF_VALIDATION, VALIDATION_LOSS
from batchlab.training.data.batches import slices
from batchlab.training.data.collated import content
from batchlab.training.passes.contract import DTYPES, METRICS, first_breach
from batchlab.training.passes.contract_of_loss import ONE_PER_TERM
from batchlab.training.passes.contract_passes import validation_pass
from batchlab.training.user_errors import message_and_place
from batchlab.worker.check.data_sample import Sample, described, shapes
from batchlab.worker.check.findings import Finding, finding_of, ok, wrong
from batchlab.worker.check.passes import Passes


def dtypes(passes: Passes) -> Iterator[Finding]:
    """Whether weights and data are in fp32, as the option `precision` assumes."""
    breach = first_breach(DTYPES, passes.seen)
    yield finding_of(breach) if breach else ok("dtype", "float32 weights, no float64 in the data")


def forward_and_loss(passes: Passes) -> Iterator[Finding]:
    """Whether forward accepts a batch, the loss accepts the labels, and the loss is one number per term."""
    seen, batch = passes.seen, shapes(passes.batch)
    if seen.failed == "forward":
        yield wrong(
            "shapes",
            f"forward fails for a batch of {batch}: {seen.words}",
            "the first axis is the example; make the model's first layer fit the other axes (it can use model_args of "
            "the Task, such as input_shape), or give the Task a forward=...",
        )
        return
    given = described([leaf for leaf in tree_leaves(seen.outputs) if isinstance(leaf, Tensor)])
    yield from (found := list(_labels(passes)))
    if found:
        return
    if seen.failed == "loss":
        yield wrong(
            "loss",
            f"the loss fails for outputs {given} and a batch of {batch}: {seen.words}",
            "the outputs and the targets must have the shapes and types that the task's loss expects",
        )
        return
    breach = first_breach(ONE_PER_TERM, seen)
    yield finding_of(breach) if breach else ok("shapes", f"outputs {given} for {seen.examples} examples")


def _labels(passes: Passes) -> Iterator[Finding]:
    """Problems with the classes that the task's `labels` gives; empty if they fit, or there are none."""
    task, outputs = passes.losses.task, passes.seen.outputs
    if task.labels is None:
        return
    whole = task.collate is None and isinstance(task.train, Mapping | tuple | list)
    try:
        train = task.labels(task.train if whole else content(passes.batch))
    except (Exception, SystemExit) as error:
        yield wrong("labels", message_and_place(error), "Task(labels=...) must give each example's class, (examples,)")
        return
    if train.dim() > 1 and isinstance(outputs, Tensor) and outputs.dim() == train.dim() + 1:
        yield wrong(
            "labels",
            f"they are {described([train])}: a class for each place, and Task.classification has one for each example",
            "use Task.segmentation(train, val, ignore_index=255), or for another loss write Task(loss=..., count=...) "
            "with one loss per place, and the number of places that are not ignored as count",
        )
        return
    if train.is_floating_point() or train.dtype is torch.bool or train.dim() != 1:
        yield wrong(
            "labels",
            f"they are {described([train])}, but a class must be an integer",
            _class_indices(train),
        )
        return
    low, high = int(train.min()), int(train.max())
    classes = outputs.shape[1] if isinstance(outputs, Tensor) and outputs.dim() == 2 else None
    if low < 0 or (classes is not None and high >= classes):
        yield wrong(
            "labels",
            f"they range from {low} to {high}, but the model has {classes if classes is not None else 'no'} outputs",
            "classes must be 0, 1, ..., one output each: renumber them (torch.unique(y, return_inverse=True)[1]), and "
            "give the model as many outputs",
        )
    elif not whole:
        return  # a few examples cannot show more
    elif low == high and len(train) > 1:
        yield wrong("labels", f"every example has class {low}: there is nothing to learn", "check the labels")
    elif low > 0:
        yield wrong(
            "labels",
            f"they range from {low} to {high}, and no example has class 0: they seem to start at {low}",
            f"classes must be 0, 1, ...: use y - {low}",
        )


def _class_indices(labels: Tensor) -> str:
    """The advice for labels that are not class indices."""
    if labels.dim() == 2 and bool(((labels == 0) | (labels == 1)).all()):
        if bool((labels.sum(1) == 1).all()):
            return "give class indices, (examples,) int64: y.argmax(1), as these seem to be one-hot"
        return "use Task.multilabel(train, val): an example can have several classes"
    return "give class indices, (examples,) int64, such as y.long()"


def metrics(passes: Passes, sample: Sample) -> Iterator[Finding]:
    """Whether each metric is one value per term, like a loss, or one of the whole set, and its better direction is
    known."""
    try:
        seen = validation_pass(passes.losses, next(slices(sample.val, passes.seen.examples)))
    except BadRequest as error:
        what, _, advice = str(error).rpartition(": ")
        yield wrong("metrics", what, advice)
        return
    except (Exception, SystemExit) as error:
        yield wrong("metrics", message_and_place(error), "Task(metrics=...) must return a dict of (terms,) tensors")
        return
    breach = first_breach(METRICS, seen)
    yield (
        finding_of(breach)
        if breach
        else ok("metrics", ", ".join([VALIDATION_LOSS.name, *(OF_VALIDATION + name for name in seen.names)]))
    )
