"""Whether data, model and loss fit together: number formats, shapes, labels, metrics."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from batchlab.check.findings import Finding, better, ok, wrong
from batchlab.check.passes import Passes
from batchlab.check.samples import Sample, described, shapes
from batchlab.training.batches import length, slices, tensors
from batchlab.training.user_errors import in_the_users_words


def number_formats(passes: Passes) -> Iterator[Finding]:
    """Whether weights and data count in fp32, as the knob `precision` takes for granted."""
    odd = {name: p.dtype for name, p in passes.model.named_parameters() if p.dtype is not torch.float32}
    if odd:
        name, dtype = next(iter(odd.items()))
        yield wrong(
            "dtype",
            f"the weights are {_short(dtype)} ({name}{_and_more(odd)}), so that no precision=... would be honoured",
            "leave them float32: take .double(), .half() or dtype=... out; precision=bf16 does the rest",
        )
        return
    wide = [i for i, part in enumerate(tensors(passes.batch)) if part.dtype is torch.float64]
    if not wide:
        yield ok("dtype", "float32 weights, no float64 in the data")
        return
    held = f"tensor {wide[0]} of the data is float64, and the weights are float32"
    mend = "make it float32 where the data is made: x.float(), or array.astype('float32')"
    try:
        passes.losses(passes.outputs(passes.batch, training=True), passes.batch)
    except (Exception, SystemExit) as error:
        yield wrong("dtype", f"{held}: {in_the_users_words(error)}", mend)
    else:
        yield better("dtype", f"{held}: twice the memory, for digits that no step sees", mend)


def forward_and_loss(passes: Passes) -> Iterator[Finding]:
    """Whether a batch passes, the labels are what the loss takes, and the loss is one number per term."""
    batch, count = passes.batch, length(passes.batch)
    try:
        outputs = passes.outputs(batch, training=True)
    except (Exception, SystemExit) as error:
        yield wrong(
            "shapes",
            f"a batch of {shapes(batch)} does not pass: {in_the_users_words(error)}",
            "the first axis is the example; make the model's first layer fit the others (model_args of the Task, such "
            "as input_shape, are offered to the model), or give the Task a forward=...",
        )
        return
    given = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
    yield from (found := list(_labels(passes, outputs)))
    if found:
        return
    try:
        losses = passes.losses(outputs, batch)
        terms = passes.task.count(batch)
    except (Exception, SystemExit) as error:
        yield wrong(
            "loss",
            f"outputs {described(given)} for a batch of {shapes(batch)}: {in_the_users_words(error)}",
            "the outputs and the targets must have the shapes and types that the task's loss takes",
        )
        return
    yield from _one_per_term(losses, terms, count, given)


def _one_per_term(losses: Any, terms: int, count: int, outputs: list[Tensor]) -> Iterator[Finding]:
    each = f"one loss per term, shape ({terms},)"
    if not isinstance(losses, Tensor):
        yield wrong("loss", f"the task's loss returns a {type(losses).__name__}", f"it must return a tensor: {each}")
    elif losses.numel() == 1 and terms > 1:
        yield wrong(
            "loss",
            f"the loss of {count} examples is one number: it is averaged, or summed, already",
            f"return {each}: reduction='none'; batchlab takes the mean, by count over all micro-batches",
        )
    elif tuple(losses.shape) == (terms,):
        yield ok("shapes", f"outputs {described(outputs)} for {count} examples")
    elif losses.dim() == 2 and losses.shape[0] == losses.shape[1] == terms:
        yield wrong(
            "loss",
            f"the loss has shape {tuple(losses.shape)}: every output beside every target, by broadcasting",
            "bring outputs and targets to one shape before they are compared, such as outputs.squeeze(1)",
        )
    else:
        yield wrong(
            "loss",
            f"the loss has shape {tuple(losses.shape)} for {count} examples that count as {terms} terms",
            f"it must be {each}; where a term is no example (a token), count=... says how many a batch has",
        )


def _labels(passes: Passes, outputs: Any) -> Iterator[Finding]:
    """What is wrong with the classes that the task's `labels` gives; nothing where they fit, or there are none."""
    task = passes.task
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
    val = next(slices(sample.val, length(passes.batch)))
    outputs = passes.outputs(val, training=False)
    try:
        given, terms = passes.task.metrics(outputs, val), passes.losses(outputs, val).numel()
    except (Exception, SystemExit) as error:
        yield wrong("metrics", in_the_users_words(error), "Task(metrics=...) returns a dict of tensors, (terms,) each")
        return
    for name, values in given.items():
        if not isinstance(values, Tensor) or values.dim() != 1 or len(values) not in (terms, length(val)):
            shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            yield wrong(
                "metrics",
                f"'{name}' is {shape} for {length(val)} examples",
                f"one value per term, shape ({terms},), not averaged: (outputs.argmax(1) == y).float()",
            )
            return
    undirected = [name for name in given if name not in passes.task.higher_is_better]
    if undirected:
        yield better(
            "metrics",
            f"is a higher {undirected[0]} better? No target can name it",
            f"say higher_is_better={{'{undirected[0]}': True}} or False in the Task",
        )
        return
    yield ok("metrics", ", ".join(["val/loss", *(f"val/{name}" for name in given)]))


def _and_more(names: Mapping[str, object]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
