"""Whether data, model and loss fit together: dtypes, shapes, labels, metrics."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from batchlab.errors import BadRequest
from batchlab.records.quantities import OF_VALIDATION, VALIDATION_LOSS
from batchlab.training.data.batches import length, slices, split
from batchlab.training.data.collated import content
from batchlab.training.data.trees import tensors
from batchlab.training.passes.contract import DTYPES, METRICS, first_breach
from batchlab.training.passes.contract_of_loss import ONE_PER_TERM
from batchlab.training.passes.contract_passes import training_pass, validation_pass
from batchlab.training.passes.observing import copies
from batchlab.training.user_errors import message_and_place
from batchlab.worker.check.data_sample import Sample, described, shapes
from batchlab.worker.check.findings import Finding, better, finding_of, ok, refused, wrong
from batchlab.worker.check.passes import TOGETHER, Passes, agree, same_outputs


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
    given = _outputs(passes)
    yield from (found := list(_labels(passes)))
    if found:
        return
    if seen.failed == "loss":
        which = f"the loss fails for {given} and" if seen.outputs is not None else "the training_loss fails for"
        yield wrong(
            "loss",
            f"{which} a batch of {batch}: {seen.words}",
            "the outputs and the targets must have the shapes and types that the task's loss expects",
        )
        return
    breach = first_breach(ONE_PER_TERM, seen)
    yield finding_of(breach) if breach else ok("shapes", f"{given} for {seen.examples} examples")


def _outputs(passes: Passes) -> str:
    """What the first pass gave."""
    seen = passes.seen
    if seen.outputs is None and isinstance(seen.terms, Tensor):  # of a `training_loss`
        return f"losses {described([seen.terms])}"
    held = [leaf for leaf in tree_leaves(seen.outputs) if isinstance(leaf, Tensor)]
    return f"outputs {described(held)}" if held else f"an output of type {type(seen.outputs).__name__}"


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
    axes = outputs.dim() if isinstance(outputs, Tensor) else 0
    if train.dim() > 2 or (train.dim() == 2 and axes == 3):
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
            _class_indices(train, whole=whole),
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


def _class_indices(labels: Tensor, *, whole: bool) -> str:
    """The advice for labels that are not class indices; `whole`: they are those of all examples."""
    if labels.dim() == 2 and labels.shape[1] > 1 and bool(((labels == 0) | (labels == 1)).all()):
        if whole and bool((labels.sum(1) == 1).all()):
            return "give class indices, (examples,) int64: y.argmax(1), as these are one-hot"
        return "use Task.multilabel(train, val): an example can have several classes"
    return "give class indices, (examples,) int64, such as y.long()"


def finite(passes: Passes, sample: Sample) -> Iterator[Finding]:
    """Whether nan or inf in the data reaches the loss or its gradient: targets may be nan where a loss masks them."""
    found = [
        (name, position)
        for name in ("train", "val")
        for position, values in enumerate(tensors(getattr(sample, name)))
        if (values.is_floating_point() or values.is_complex()) and not bool(torch.isfinite(values).all())
    ]
    if not found:
        return
    name, position = found[0]
    advice = "fill in or leave out missing values; a model cannot learn from a loss of nan"
    reached = ""
    for which in dict.fromkeys(name for name, _ in found):
        seen = training_pass(passes.losses, getattr(sample, which)).completed()
        gradients = [gradient for gradient in seen.gradient_values.values() if gradient is not None]
        if not all(bool(torch.isfinite(part).all()) for part in (seen.terms, *gradients)):
            reached = which
            break
    if reached:
        yield wrong(
            "data",
            f"tensor {dict(found)[reached]} of {reached} contains nan or inf, and so does the loss or its gradient",
            advice,
        )
    else:
        yield ok(
            "data", f"tensor {position} of {name} contains nan or inf, which neither the loss nor its gradient has"
        )


def halves(passes: Passes, sample: Sample) -> Iterator[Finding]:
    """Whether a metric has the same values when the validation examples are evaluated in two halves."""
    batch, joined = sample.val, passes.losses.is_joined
    if length(batch) < 2 or passes.draws_in_eval_mode:
        return
    middle = length(batch) // 2
    parts = split(batch, [middle, length(batch) - middle])
    outputs = passes.outputs(batch)
    of_parts = [passes.outputs(part) for part in parts]
    if not joined and not same_outputs(copies(outputs), [copies(one) for one in of_parts]):
        return  # the outputs themselves depend on the batch
    whole = passes.metrics(outputs, batch)
    found = [passes.metrics(one, part) for one, part in zip(of_parts, parts, strict=True)]
    for name, values in whole.items():
        together = torch.cat([metrics[name].flatten() for metrics in found])
        if not agree([together.double().sort()[0]], [values.flatten().double().sort()[0]], TOGETHER):
            is_whole = passes.losses.task.reduction == "batch"
            mean, mean_of_halves = (float(t.double().mean()) for t in (values, together))
            yield (better if is_whole else wrong)(
                "metrics",
                f"the metric '{name}' depends on the evaluation batch: {mean:.4g} for {length(batch)} examples, but "
                f"{mean_of_halves:.4g} for the same in two halves, so it changes with eval_batch_size",
                "give a metric that is no mean over examples (F1, AUROC, a correlation) as whole_metrics=..., which "
                "sees all batches before it is computed",
            )
            return


def metrics(passes: Passes, sample: Sample) -> Iterator[Finding]:
    """Whether each metric is one value per term, like a loss, or one of the whole set, and its better direction is
    known."""
    try:
        seen = validation_pass(passes.losses, next(slices(sample.val, passes.seen.examples)))
    except BadRequest as error:
        yield refused("metrics", error)
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
