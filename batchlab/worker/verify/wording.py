"""The output of `verify`: the numbers, what they mean, what to type."""

from collections.abc import Iterator, Sequence

from batchlab.config import RunConfig, target_name
from batchlab.printable import aligned, listed, number, printable
from batchlab.training.passes.contract_of_loss import ADDS_UP, BY_ITSELF, DIVIDED
from batchlab.worker.verify.findings import Cause, Findings, Kind

MIB = 2**20
MOST_NAMED = 3  # layers, or modules of one class
ILL_CONDITIONED = 1e-2  # a difference from rounding alone, in fp32


def lines(findings: Findings, config: RunConfig) -> list[str]:
    """The lines of the output."""
    found, sizes = findings.differences, findings.micro_batch_sizes
    output = [
        f"{printable(target_name(config.model))} on {printable(target_name(config.data))}: {len(found[0].each)} "
        f"batches of {config.batch_size} examples, whole and as {_micro_batches(sizes)}, at the initial weights of "
        f"seed {config.seed}.",
        "Relative difference of the gradients, |accumulated - whole| / |whole|:",
        *_table(findings),
        "",
        *_verdict(findings),
    ]
    for cause in findings.causes:
        output += [*_cause(cause, findings, config)]
    output += _open_questions(findings)
    whole, micro = (f"{size / MIB:,.{3 if size < 10 * MIB else 0}f} MiB" for size in findings.saved_bytes)
    return [*output, f"Saved for backward: {whole} for the whole batch, {micro} for a micro-batch of {sizes[0]}."]


def _table(findings: Findings) -> list[str]:
    rows = []
    for difference in findings.differences:
        layer, worst = difference.worst_layers[0]
        rows.append(
            [
                difference.dtype,
                number(difference.mean, ".2g"),
                number(difference.worst, ".2g"),
                number(worst, ".2g"),
                printable(layer) or "the model's own",
            ]
        )
    return aligned(["", "mean", "worst", "worst of\na layer", "which\nlayer"], rows, left=(0, 4))


def _verdict(findings: Findings) -> Iterator[str]:
    if findings.is_rounding:
        yield "The same gradient up to rounding: an update over these micro-batches equals one on the whole batch."
        noise = findings.differences[0]
        if noise.worst > ILL_CONDITIONED:
            yield (
                f"In {noise.dtype} rounding alone changes it by {noise.worst:.2g}: at these weights the model is too "
                "sensitive for a more exact comparison in fp32."
            )
    elif findings.same:
        yield "The same gradient, except for the random numbers, which differ from pass to pass."
    else:
        yield "Not the same gradient: an update over these micro-batches differs from one on the whole batch."


def _cause(cause: Cause, findings: Findings, config: RunConfig) -> Iterator[str]:
    where = _where(cause)
    if cause.kind is Kind.COUNT:
        whole, *parts = cause.counts
        breach = ADDS_UP.worded(whole=whole, parts=sum(parts))
        yield f"Cause: {breach.what}. {_left(cause, 'With a count of examples instead')}"
        yield f"What to do: {breach.advice}."
    elif cause.kind is Kind.RANDOM:
        yield f"Cause: {where} uses random numbers, which differ between passes. {_left(cause, _without(cause))}"
        yield (
            f"What it means: two passes of one whole batch differ by {number(cause.redrawn, '.2g')} for the same "
            "reason; on average over the random numbers the gradients agree."
        )
    elif cause.kind is Kind.WHOLE:
        yield f"Cause: {where} is of the batch as a whole (reduction=batch): it is not a mean over its micro-batches."
        yield "What it means: the batch size is part of the objective; accumulate=1 passes the whole batch."
    elif cause.is_batch_norm:
        ghosts = config.model.get("ghost_batch")
        together = (
            f"over ghost batches of {ghosts}, which split a micro-batch of {findings.micro_batch_sizes[0]} and the "
            f"whole batch of {config.batch_size} at different examples"
            if ghosts and ghosts < findings.micro_batch_sizes[0]
            else f"over the examples of one pass: {findings.micro_batch_sizes[0]} in a micro-batch, "
            f"{min(ghosts or config.batch_size, config.batch_size)} in the whole batch"
        )
        yield f"Cause: {where} computes mean and variance {together}. {_left(cause, _without(cause))}"
        yield from _about_batch_norm(findings, config)
    elif cause.what == "loss" and not cause.paths:
        breach = (DIVIDED if cause.divides else BY_ITSELF).worded()
        yield f"Cause: {breach.what}. {_left(cause, _without(cause))}"
        yield f"What to do: {breach.advice}."
    else:
        yield (
            f"Cause: {where} gives the same examples another output in a micro-batch than in the whole batch"
            f"{'' if cause.frozen or not cause.paths else ', in eval mode too'}. {_left(cause, _without(cause))}"
        )
        yield (
            "What it means: the output of this model depends on the micro-batch. Layers that treat each example "
            "separately (LayerNorm, GroupNorm) avoid this; accumulate=1 passes the whole batch."
        )


def _about_batch_norm(findings: Findings, config: RunConfig) -> Iterator[str]:
    micro, ghost = findings.micro_batch_sizes[0], config.model.get("ghost_batch")
    if ghost is not None and ghost < config.batch_size:
        multiple = max(ghost, micro // ghost * ghost)
        yield (
            f"What to type: with model.ghost_batch={ghost}, micro_batch_size must be a multiple of it, such as "
            f"accumulate=null micro_batch_size={multiple}."
        )
        return
    without = ", model.batch_norm=false removes it" if config.model.get("batch_norm") is True else ""
    here = " (model.norm=group)" if "norm" in config.model else ""
    yield (
        f"What to type: model.ghost_batch={micro} computes them over {micro} examples in both{without}; GroupNorm or "
        f"LayerNorm instead{here} treats each example separately."
    )


def _open_questions(findings: Findings) -> list[str]:
    output = []
    last = findings.causes[-1] if findings.causes else None
    left = last.remains if last is not None else findings.deciding.worst
    if left is not None and not findings.explained and not findings.is_rounding:
        output.append(
            f"Not explained: {left:.2g}. Every module gives the same examples the same output in both passes, and so "
            "does the loss; the backward pass was not examined."
        )
    if findings.float64_failed:
        output.append(
            f"Not possible in float64 ({printable(findings.float64_failed)}), so this relies on fp32, where up to "
            f"{findings.bound:g} counts as rounding."
        )
    return output


def _where(cause: Cause) -> str:
    """`BatchNorm2d (layers.1 and layers.5)`, `the task's forward`."""
    if not cause.paths:
        return f"the task's {cause.what}"
    paths = [printable(path) or "the model itself" for path in cause.paths]
    return f"{printable(cause.what)} ({listed(paths, MOST_NAMED)})"


def _without(cause: Cause) -> str:
    if cause.frozen:
        return "With it in eval mode in both"
    return "With micro-batches passed to it sequentially in the whole batch too"


def _left(cause: Cause, without: str) -> str:
    if cause.remains is None:
        return "It could not be removed, so there may be other causes."
    return f"{without}, {cause.remains:.2g} remains."


def _micro_batches(sizes: Sequence[int]) -> str:
    last = f", the last of {sizes[-1]}" if sizes[-1] != sizes[0] else ""
    return f"{len(sizes)} micro-batches of {sizes[0]}{last}"
