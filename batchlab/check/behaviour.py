"""How a model behaves: what it draws and keeps, what mixes examples, where the gradient goes."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from batchlab.check.findings import Finding, better, ok, wrong
from batchlab.check.passes import Passes, agree, changes, kept
from batchlab.config import RunConfig
from batchlab.printable import printable
from batchlab.training.batches import slices
from batchlab.training.observing import copies, first_difference
from batchlab.training.user_errors import in_the_users_words

TOGETHER = 1e-3  # an example's output beside others and alone, in fp32: other kernels, other rounding
FEW = 8  # examples of a micro-batch below which BatchNorm's statistics are mostly noise
MOST_NAMED = 3


def randomness(passes: Passes) -> Iterator[Finding]:
    """Whether equal passes are equal, in both modes, and eval mode draws nothing."""
    passes.results(training=False, seed=0)  # what is made once, at the first pass, is made now
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
                f"forward gives another result each time, in {mode} mode too: {_listed(between)}",
                "forward must be a function of its inputs, the weights and the buffers; keep what must last in a "
                "buffer (register_buffer), which checkpoints hold, or leave it out",
            )
        else:
            yield wrong(
                "random",
                f"two equal passes in {mode} mode differ although every seed is the same: something draws from a "
                "generator that nobody seeds, or reads the clock or a global variable",
                "draw from PyTorch's global stream (torch.rand, nn.Dropout), which batchlab seeds and checkpoints",
            )
        return
    one, other = (passes.results(training=False, seed=seed) for seed in (0, 1))
    if not agree(one, other, passes.rounding):
        yield wrong(
            "random",
            "eval mode draws random numbers: a validation would give another value each time",
            "draw only `if self.training:`; nn.Dropout does so by itself, F.dropout needs training=self.training",
        )
        return
    before = kept(passes.model)
    passes.results(training=True, seed=0)
    if between := changes(before, kept(passes.model)):
        yield better(
            "state",
            f"forward changes what no checkpoint holds: {_listed(between)}; a run that goes on starts with it anew",
            "make it a buffer (register_buffer) if it matters to training",
        )
    yield ok("random", "equal passes are equal, and eval mode draws nothing")


def independence(passes: Passes) -> Iterator[Finding]:
    """Whether an example gets the same output and the same loss alone as beside others, in eval mode."""
    ones = passes.one_by_one()
    try:
        together = passes.outputs(passes.batch, training=False)
        alone = [passes.outputs(one, training=False) for one in ones]
        whole = copies(passes.losses(together, passes.batch))
        apart = copies([passes.losses(out, one) for out, one in zip(alone, ones, strict=True)])
    except (Exception, SystemExit) as error:
        yield wrong(
            "alone",
            f"in eval mode an example does not pass alone: {in_the_users_words(error)}",
            "forward must take any number of examples: no squeeze() that drops the first axis, no fixed batch size, no "
            "BatchNorm with track_running_stats=False",
        )
        return
    if (axes := _lost_axis(copies(together), copies(alone[0]))) is not None:
        yield wrong(
            "alone",
            f"an example alone gives outputs of shape {axes[0]}, and of {axes[1]} beside others: an axis is lost",
            "forward must keep the first axis for one example too: squeeze(-1) or flatten(1) in place of squeeze()",
        )
        return
    if sum(part.numel() for part in apart) != whole[0].numel():
        yield wrong("alone", "the losses of single examples are more or fewer than those of the batch", "look at count")
        return
    if agree([torch.cat([part.flatten() for part in apart]).sort()[0]], [whole[0].flatten().sort()[0]], TOGETHER):
        yield ok("alone", "in eval mode an example has the same loss alone as beside others")
        return
    difference = first_difference(passes.calls(passes.batch), [passes.calls(one) for one in ones], TOGETHER)
    if difference is not None:
        call, _ = difference
        where = f"{type(call.module).__name__} '{printable(call.path)}'" if call.path else "the model's own forward"
        yield wrong(
            "alone",
            f"in eval mode the output of an example depends on the examples beside it: {where}",
            "a mean, a softmax or a normalisation over the first axis mixes examples; BatchNorm needs "
            "track_running_stats=True, and training=self.training where it is called as a function",
        )
        return
    if _same_outputs(together, alone):
        yield wrong(
            "loss",
            "the loss of an example depends on the examples beside it, at the same outputs: it is averaged, or divided "
            "by their number, already",
            "return the loss of each term by itself (reduction='none'); batchlab takes the mean",
        )
        return
    yield wrong("alone", "an example has another loss alone than beside others, in eval mode", "look at task.forward")


def _lost_axis(together: list[Any], alone: list[Any]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The shapes of the first output that has fewer axes for one example than for several."""
    shapes = [(tuple(one.shape), tuple(many.shape)) for one, many in zip(alone, together, strict=False)]
    return next(((one, many) for one, many in shapes if len(one) < len(many)), None)


def _same_outputs(together: Any, alone: list[Any]) -> bool:
    whole = copies(together)
    parts = [copies(one) for one in alone]
    if any(len(part) != len(whole) for part in parts):
        return False
    joined = [torch.cat(list(pieces)) for pieces in zip(*parts, strict=True)]
    return agree(joined, whole, TOGETHER)


def gradient(passes: Passes) -> Iterator[Finding]:
    """Whether a gradient reaches the weights."""
    losses = passes.losses(passes.outputs(passes.batch, training=True), passes.batch)
    cut = "take .detach(), .item(), .data, .numpy(), argmax and torch.no_grad() out of the way from weights to loss"
    if not losses.requires_grad:
        yield wrong("gradient", "none reaches the weights: the loss has no graph behind it", cut)
        return
    found = passes.gradients()
    without = [name for name, grad in found.items() if grad is None]
    broken = [name for name, grad in found.items() if grad is not None and not bool(torch.isfinite(grad).all())]
    still = [name for name, grad in found.items() if grad is not None and not bool(grad.count_nonzero())]
    if len(without) == len(found):
        yield wrong("gradient", "none reaches any of the model's parameters", cut)
    elif broken:
        yield wrong(
            "gradient",
            f"it is nan or inf at {_listed(broken)}, at the initial weights",
            "look for a division by zero, a log or a square root of 0, and at the scale of the inputs",
        )
    elif len(without) + len(still) == len(found):
        yield wrong("gradient", "it is zero everywhere", "look for a constant output, or initial weights of 0")
    elif without:
        yield better(
            "gradient",
            f"none reaches {_listed(without)}: {len(without)} of {len(found)} parameters are never trained",
            f"use them in forward, leave them out, or requires_grad_(False); else {cut}",
        )
    else:
        yield ok("gradient", f"it reaches all {len(found)} parameters")


def batch_norm(passes: Passes, config: RunConfig) -> Iterator[Finding]:
    """Whether BatchNorm has enough examples for its statistics in the micro-batches that were asked for."""
    norms = [(n, m) for n, m in passes.model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        yield ok("BatchNorm", "there is none")
        return
    name, smallest = norms[0][0], min(config.micro_batch_sizes)
    if smallest == 1 and (said := _fails_alone(passes)):
        yield wrong(
            "BatchNorm",
            f"batch_size={config.batch_size} makes a micro-batch of 1 example, and layer '{name}' cannot take a "
            f"variance of one number per channel ({said})",
            "use a larger batch_size or micro_batch_size, or GroupNorm or LayerNorm in its place",
        )
    elif smallest < FEW:
        yield better(
            "BatchNorm",
            f"its statistics are those of {smallest} examples, and mostly noise",
            "use micro-batches of 16 and more, or GroupNorm or LayerNorm in its place",
        )
    else:
        yield ok("BatchNorm", f"{len(norms)} layers, with {smallest} examples each at least")


def _fails_alone(passes: Passes) -> str:
    try:
        passes.outputs(next(slices(passes.batch, 1)), training=True)
    except ValueError as error:  # "Expected more than 1 value per channel when training"
        return (str(error).strip() or "ValueError").splitlines()[0]
    return ""


def _listed(names: list[str]) -> str:
    shown = ", ".join(printable(name) for name in names[:MOST_NAMED])
    more = len(names) - MOST_NAMED
    return f"{shown} and {more} more" if more > 0 else shown
