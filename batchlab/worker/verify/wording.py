"""What `verify` found, in words: the numbers, what they mean, what to type."""

from collections.abc import Iterator, Sequence

from batchlab.config import RunConfig, target_name
from batchlab.printable import aligned, listed, number, printable
from batchlab.training.passes.contract import ADDS_UP, BY_ITSELF, DIVIDED
from batchlab.worker.verify.findings import Cause, Findings, Kind

MIB = 2**20
MOST_NAMED = 3  # layers, or modules of one class
ILL_CONDITIONED = 1e-2  # of rounding alone, in fp32


def lines(findings: Findings, config: RunConfig) -> list[str]:
    """The whole answer: the numbers, what they mean, and what to type."""
    found, sizes = findings.differences, findings.micro_batch_sizes
    told = [
        f"{printable(target_name(config.model))} on {printable(target_name(config.data))}: {len(found[0].each)} "
        f"batches of {config.batch_size} examples, whole and as {_micro_batches(sizes)}, at the initial weights of "
        f"seed {config.seed}.",
        "Relative difference of the gradients, |accumulated - whole| / |whole|:",
        *_table(findings),
        "",
        *_verdict(findings),
    ]
    for cause in findings.causes:
        told += [*_cause(cause, findings, config)]
    told += _open_ends(findings)
    whole, micro = (f"{size / MIB:,.{3 if size < 10 * MIB else 0}f} MiB" for size in findings.saved_bytes)
    return [*told, f"Saved for backward: {whole} by the whole batch, {micro} by a micro-batch of {sizes[0]}."]


def _table(findings: Findings) -> list[str]:
    rows = []
    for difference in findings.differences:
        layer, worst = difference.worst_layers[0]
        rows.append(
            [
                difference.number_format,
                number(difference.mean, ".2g"),
                number(difference.worst, ".2g"),
                number(worst, ".2g"),
                printable(layer) or "the model's own",
            ]
        )
    return aligned(["", "mean", "worst", "worst of\na layer", "which\nlayer"], rows, left=(0, 4))


def _verdict(findings: Findings) -> Iterator[str]:
    if findings.is_rounding:
        yield "The same gradient, to rounding: an update over these micro-batches is an update on the whole batch."
        noise = findings.differences[0]
        if noise.worst > ILL_CONDITIONED:
            yield (
                f"In {noise.number_format} rounding alone moves it by {noise.worst:.2g}: at these weights the model is "
                "too sensitive for fp32 to say more."
            )
    elif findings.same:
        yield "The same gradient, apart from the random numbers that each pass draws anew."
    else:
        yield "Not the same gradient: an update over these micro-batches is not an update on the whole batch."


def _cause(cause: Cause, findings: Findings, config: RunConfig) -> Iterator[str]:
    where = _where(cause)
    if cause.kind is Kind.COUNT:
        whole, *parts = cause.counts
        breach = ADDS_UP.worded(whole=whole, parts=sum(parts))
        yield f"Cause: {breach.what}. {_left(cause, 'With the examples counted instead')}"
        yield f"What to do: {breach.advice}."
    elif cause.kind is Kind.RANDOM:
        yield f"Cause: {where} draws random numbers, and other ones in other passes. {_left(cause, _without(cause))}"
        yield (
            f"What it means: two passes of one whole batch differ by {number(cause.redrawn, '.2g')} for the same "
            "reason; on average over the draws the gradients agree."
        )
    elif cause.is_batch_norm:
        ghosts = config.model.get("ghost_batch")
        together = (
            f"from ghosts of {ghosts}, which part a micro-batch of {findings.micro_batch_sizes[0]} and the whole batch "
            f"of {config.batch_size} at other examples"
            if ghosts and ghosts < findings.micro_batch_sizes[0]
            else f"from the examples that pass together: {findings.micro_batch_sizes[0]} in a micro-batch, "
            f"{min(ghosts or config.batch_size, config.batch_size)} in the whole batch"
        )
        yield f"Cause: {where} takes mean and variance {together}. {_left(cause, _without(cause))}"
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
            "What it means: the micro-batch is part of this model. A layer that treats each example by itself "
            "(LayerNorm, GroupNorm) has no such part; accumulate=1 passes the whole batch."
        )


def _about_batch_norm(findings: Findings, config: RunConfig) -> Iterator[str]:
    micro, ghost = findings.micro_batch_sizes[0], config.model.get("ghost_batch")
    if ghost is not None and ghost < config.batch_size:
        multiple = max(ghost, micro // ghost * ghost)
        yield (
            f"What to type: model.ghost_batch={ghost} parts a batch alike only where micro_batch_size is a multiple of "
            f"it, such as accumulate=null micro_batch_size={multiple}."
        )
        return
    without = ", model.batch_norm=false leaves it out" if config.model.get("batch_norm") is True else ""
    here = " (model.norm=group)" if "norm" in config.model else ""
    yield (
        f"What to type: model.ghost_batch={micro} takes them over {micro} examples in both{without}; GroupNorm or "
        f"LayerNorm in its place{here} looks at one example at a time."
    )


def _open_ends(findings: Findings) -> list[str]:
    told = []
    last = findings.causes[-1] if findings.causes else None
    left = last.remains if last is not None else findings.deciding.worst
    if left is not None and not findings.explained and not findings.is_rounding:
        told.append(
            f"Not explained: {left:.2g}. Every module gives the same examples the same output in both passes, and so "
            "does the loss; what its backward pass does was not looked into."
        )
    if findings.float64_failed:
        told.append(
            f"Not possible in float64 ({printable(findings.float64_failed)}), so this rests on fp32, where up to "
            f"{findings.bound:g} passes for rounding."
        )
    return told


def _where(cause: Cause) -> str:
    """`BatchNorm2d (layers.1 and layers.5)`, `the task's forward`."""
    if not cause.paths:
        return f"the task's {cause.what}"
    paths = [printable(path) or "the model itself" for path in cause.paths]
    return f"{printable(cause.what)} ({listed(paths, MOST_NAMED)})"


def _without(cause: Cause) -> str:
    if cause.frozen:
        return "With it in eval mode in both"
    return "Passed to it one micro-batch after the other in the whole batch too"


def _left(cause: Cause, without: str) -> str:
    if cause.remains is None:
        return "It could not be taken out, so what else there may be is not known."
    return f"{without}, {cause.remains:.2g} is left."


def _micro_batches(sizes: Sequence[int]) -> str:
    last = f", the last of {sizes[-1]}" if sizes[-1] != sizes[0] else ""
    return f"{len(sizes)} micro-batches of {sizes[0]}{last}"
