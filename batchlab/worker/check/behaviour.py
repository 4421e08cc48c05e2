"""Trials of a model's behaviour: randomness, state, dependence between examples, gradient flow."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from batchlab.config import RunConfig
from batchlab.printable import printable
from batchlab.training.data.batches import length, slices, split
from batchlab.training.data.collated import Collated
from batchlab.training.passes.contract import GRADIENT, few, first_breach, one_example
from batchlab.training.passes.contract_of_loss import ADDS_UP, BY_ITSELF, DIVIDED, IGNORED_BUT_COUNTED
from batchlab.training.passes.contract_passes import Parts, batch_norm_that_needs_two, ignored_but_counted
from batchlab.training.passes.inputs import INSTEAD
from batchlab.training.passes.observing import copies, first_difference
from batchlab.training.user_errors import message_and_place
from batchlab.worker.check.findings import Finding, better, finding_of, ok, wrong
from batchlab.worker.check.passes import TOGETHER, Passes, agree, changes, kept, same_outputs

ROUNDING = 1e-6  # relative, of equal passes of other sizes in fp32
FEW = 8  # examples per micro-batch, below which BatchNorm's statistics are mostly noise


def randomness(passes: Passes) -> Iterator[Finding]:
    """Whether equal passes give equal results, in both modes, and whether eval mode draws random numbers."""
    passes.results(training=False, seed=0)  # creates what the first pass creates
    for training in (False, True):
        mode = "training" if training else "eval"
        before = kept(passes.model)
        first = passes.results(training=training, seed=0)
        between = changes(before, kept(passes.model))
        again = passes.results(training=training, seed=0)
        if agree(first, again, passes.rounding):
            continue
        if between:
            yield wrong(
                "state",
                f"forward changes its own state, so that equal passes differ in {mode} mode: {few(between)}",
                "the result of forward must depend only on its inputs, the weights and the buffers: move this state to "
                "a buffer (register_buffer), which checkpoints store, or remove it",
            )
        else:
            yield wrong(
                "random",
                f"two equal passes in {mode} mode differ although all seeds are the same: the model uses an unseeded "
                "random generator, the clock or a global variable",
                "use PyTorch's global generator (torch.rand, nn.Dropout), which batchlab seeds and checkpoints",
            )
        return
    before = kept(passes.model)
    passes.results(training=True, seed=0)
    if between := changes(before, kept(passes.model)):
        yield better(
            "state",
            f"forward changes state that checkpoints do not store: {few(between)}; a resumed run starts without it",
            "make it a buffer (register_buffer) if training depends on it",
        )
    if passes.draws_in_eval_mode:
        yield better(
            "random",
            "eval mode draws random numbers: every validation uses the same ones, seeded by the position of the batch",
            "nothing if that is intended, as in a variational autoencoder; otherwise use random numbers only "
            "`if self.training:`; nn.Dropout does that, F.dropout needs training=self.training",
        )
    else:
        yield ok("random", "equal passes give equal results, and eval mode uses no random numbers")


def in_place(passes: Passes) -> Iterator[Finding]:
    """Whether the batch is as it was after a pass."""
    if (where := passes.changes_its_input()) is not None:
        yield better(
            "input",
            f"{where} changes its input in place, so batchlab evaluates on copies, and the loss gets the changed batch",
            f"{INSTEAD}, and layers with inplace=False",
        )


def independence(passes: Passes) -> Iterator[Finding]:
    """Whether an example has the same output and loss alone as in a batch, in eval mode."""
    if passes.losses.task.reduction == "batch":
        yield ok("alone", "not compared: the loss is of the batch as a whole")
        return
    ones = passes.one_by_one()
    try:
        together, loss, count = passes.valued(passes.batch)
        singles = [passes.valued(one) for one in ones]
    except (Exception, SystemExit) as error:
        yield wrong(
            "alone",
            f"in eval mode forward fails for a single example: {message_and_place(error)}",
            "forward must accept any number of examples: no squeeze() that drops the first axis, no fixed batch size, "
            "no BatchNorm with track_running_stats=False",
        )
        return
    alone = [outputs for outputs, _, _ in singles]
    if (axes := _lost_axis(copies(together), copies(alone[0]))) is not None:
        yield wrong(
            "alone",
            f"a single example gives outputs of shape {axes[0]}, but {axes[1]} in a batch: an axis is lost",
            "forward must keep the first axis for one example too: squeeze(-1) or flatten(1) instead of squeeze()",
        )
        return
    # The mean of no terms is nan.
    (whole,), single = copies(loss), copies([part for _, part, terms in singles if terms or part.dim()])
    parts = Parts(whole, single, TOGETHER, (count, [terms for _, _, terms in singles]))
    if (breach := first_breach([ADDS_UP], parts)) is not None:
        yield finding_of(breach)
        return
    if passes.losses.is_scalar:
        whole, single = whole.sum().reshape(1), [torch.stack([part.sum() for part in single]).sum().reshape(1)]
    if passes.draws_in_eval_mode:
        yield ok("alone", "a single example passes; not compared with a batch, because eval mode draws random numbers")
        return
    if _losses_agree(whole, single):
        yield ok("alone", "in eval mode an example has the same loss alone as in a batch")
        return
    same = same_outputs(copies(together), [copies(one) for one in alone])
    if same and (breach := first_breach([DIVIDED], parts)) is not None:
        yield finding_of(breach)
        return
    if same is not False and _has_common_part(passes, whole):
        yield better(
            "alone",
            "the loss has a part of the batch as a whole, the same for all of its terms: an auxiliary loss, such as "
            "one that balances experts? It differs between micro-batches, so accumulating changes it a little",
            "nothing if that is meant; accumulate=1 keeps it as it is",
        )
        return
    difference = first_difference(passes.calls(passes.batch), [passes.calls(one) for one in ones], TOGETHER)
    if not same and difference is not None:
        call, _ = difference
        where = f"{type(call.module).__name__} '{printable(call.path)}'" if call.path else "the model's own forward"
        yield wrong(
            "alone",
            f"in eval mode the output of an example depends on the other examples of the batch: {where}",
            "a mean, a softmax or a normalisation over the first axis mixes examples; BatchNorm needs "
            "track_running_stats=True, or training=self.training if it is called as a function",
        )
    elif same:
        yield finding_of(BY_ITSELF.worded())
    elif isinstance(passes.batch, Collated):
        yield better(
            "alone",
            "in eval mode an example has another loss alone than in a batch, so what the task's collate adds to it to "
            "fit the others (padding) changes its result, and the batch size changes the data",
            "mask the padding in forward and in the loss, as with torch.nn.utils.rnn.pack_padded_sequence; nothing if "
            "the model is meant to see it",
        )
    else:
        yield wrong("alone", "in eval mode an example has another loss alone than in a batch", "check task.forward")


def terms(passes: Passes) -> Iterator[Finding]:
    """Whether the count of a larger batch fits its loss: it adds up over unequal parts, and leaves out ignored
    labels."""
    losses, batch = passes.losses, passes.larger
    outputs = passes.outputs(batch)
    loss, count = passes.summed(outputs, batch)
    sizes = [length(batch) // 3, length(batch) - length(batch) // 3]
    counts = [losses.count(part) for part in split(batch, [size for size in sizes if size])]
    is_whole = losses.task.reduction == "batch"
    found = None if is_whole else first_breach([ADDS_UP], Parts(loss, [], TOGETHER, (count, counts)))
    found = found or first_breach([IGNORED_BUT_COUNTED], ignored_but_counted(losses, batch, loss))
    if found is not None:
        yield finding_of(found)
    elif is_whole and passes.declared != "batch":
        yield better(
            "loss",
            "the loss of a batch is not the mean, weighted by count, of the losses of its parts, so it is treated as "
            "one of the batch as a whole (reduction=batch): the batch size is part of the objective, and accumulate=1",
            "if that is meant (contrastive, Dice), say so with Task(reduction='batch'); if it is a mean over tokens, "
            "or over labels that are not ignored, give their number with count=...",
        )
    else:
        kind = losses.task.reduction or "none"
        yield ok("terms", f"{length(batch)} examples count as {count:,} terms; reduction={kind}")


def _lost_axis(together: list[Any], alone: list[Any]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The shapes of the first output that has fewer axes for one example than for several."""
    shapes = [(tuple(one.shape), tuple(many.shape)) for one, many in zip(alone, together, strict=False)]
    return next(((one, many) for one, many in shapes if len(one) < len(many)), None)


def _losses_agree(whole: Tensor, single: Sequence[Tensor]) -> bool:
    """Whether the losses of single examples are those of the batch, in any order; their sums, if what is ignored in a
    padded batch has a loss of 0."""
    alone = torch.cat([part.flatten() for part in single])
    if len(alone) != whole.numel():
        alone, whole = alone.sum(), whole.sum()
    return agree([alone.flatten().sort()[0]], [whole.flatten().sort()[0]], TOGETHER)


def _has_common_part(passes: Passes, whole: Tensor) -> bool:
    """Whether the terms of a batch and those of its first examples differ by one number, the same for all."""
    return any(_differ_by_one_number(passes, whole.flatten().double(), size) for size in (2, 3, 4))


def _differ_by_one_number(passes: Passes, whole: Tensor, size: int) -> bool:
    some = passes.valued(next(slices(passes.batch, size)))[1].detach().cpu().flatten().double()
    if not 1 < len(some) < len(whole):
        return False
    difference, rounding = whole[: len(some)] - some, float(ROUNDING * whole.abs().max())
    least, spread = float(difference.abs().min()), float((difference - difference.mean()).abs().max())
    return least > 10 * rounding and spread < max(rounding, TOGETHER * least)


def gradient(passes: Passes) -> Iterator[Finding]:
    """Whether a gradient reaches the weights."""
    seen = passes.seen.completed()
    breach = first_breach(GRADIENT, seen)
    yield finding_of(breach) if breach else ok("gradient", f"it reaches all {len(seen.gradients)} parameters")


def batch_norm(passes: Passes, config: RunConfig) -> Iterator[Finding]:
    """Whether the requested micro-batches have enough examples for the statistics of BatchNorm."""
    norms = sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in passes.model.modules())
    smallest = min(config.micro_batch_sizes)
    if not norms:
        yield ok("BatchNorm", "the model has none")
    elif smallest == 1 and (layer := batch_norm_that_needs_two(passes.losses, passes.batch)) is not None:
        yield finding_of(one_example(config, layer))
    elif smallest < FEW:
        yield better(
            "BatchNorm",
            f"its statistics come from only {smallest} examples and are mostly noise",
            "use micro-batches of 16 or more, or GroupNorm or LayerNorm instead",
        )
    else:
        yield ok("BatchNorm", f"{norms} layers, each with at least {smallest} examples")
