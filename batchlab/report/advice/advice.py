"""The sentences of a recommendation: what to use and why, what is best by other criteria, what limits it."""

import math
from collections.abc import Iterator

import pandas as pd

from batchlab.printable import listed, printable
from batchlab.records import RunStatus, Unknown
from batchlab.records.quantities import VALIDATION_LOSS
from batchlab.report.advice.picks import Pick
from batchlab.report.fits.fits import GroupFits
from batchlab.report.fits.to_target import ToTarget
from batchlab.report.tables.find_results import Search
from batchlab.report.tables.groups import column, over_seeds
from batchlab.science.memory.largest_fit import SearchStatus
from batchlab.science.scaling.critical_batch import ESTIMATE, LOWER, UPPER
from batchlab.science.scaling.knee import Knee
from batchlab.science.statistics.uncertainty import Interval

MIB = 2**20
WORSE = 1.25  # times its best loss: if the final loss is above this, it was better before
LONGEST = 100  # characters of a group's name


def use(main: GroupFits, size: int, lr: float, fastest: Pick | None, cheapest: Pick | None, loss: Pick | None) -> str:
    """The first sentence: what to use and why."""
    start = f"Use batch size {size} at a learning rate of {lr:.4g}{of_group(main)}:"
    target = main.to_target
    if isinstance(target, ToTarget) and fastest is not None:
        seconds = _interval(fastest.value, ".3g")
        why = f"it was the fastest to {printable(target.metric)} {target.value:g}, {seconds} seconds of training"
        return f"{start} {why}{_ties(fastest)}."
    if isinstance(target, ToTarget) and cheapest is not None:
        why = f"it took the fewest examples to {printable(target.metric)} {target.value:g}{_ties(cheapest)}"
        return f"{start} {why}; times cannot be compared ({_why(main.time_to_target)})."
    assert loss is not None  # otherwise nothing was chosen
    if size == loss.batch_size:
        lowest = _interval(loss.value, ".4g")
        return f"{start} at its best it reached the lowest validation loss, {lowest}{_ties(loss)}."
    best = f"the lowest, {_interval(loss.value, '.4g')} at {loss.batch_size}"
    return f"{start} its validation loss is not shown to differ from {best}, and of these sizes it trained fastest."


def other_picks(
    main: GroupFits, size: int, fastest: Pick | None, cheapest: Pick | None, loss: Pick | None
) -> Iterator[str]:
    target = main.to_target
    if cheapest is not None and fastest is not None:
        examples = f"{_interval(cheapest.value, ',.0f')} examples to the target"
        same = "It is also the cheapest" if cheapest.batch_size == size else f"The cheapest is {cheapest.batch_size}"
        yield f"{same}, with {examples}{_ties(cheapest)}."
    if isinstance(target, Unknown):
        yield f"The time to a given quality is not known: {_sentence(target.why)}"
    elif missed := [str(s.batch_size) for s in target.sizes if not s.reached]:
        yield f"Not every seed reached the target at {listed(missed)}."
    if loss is None and isinstance(target, ToTarget):
        yield "The best validation loss is not known: runs stopped at the target, or measured none."
    elif loss is not None and fastest is not None:
        which = "It also" if loss.batch_size == size else f"Batch size {loss.batch_size}"
        yield f"{which} had the lowest validation loss, {_interval(loss.value, '.4g')}{_ties(loss)}."


def critical(main: GroupFits) -> Iterator[str]:
    target = main.to_target
    if isinstance(target, Unknown):
        return
    found = target.critical
    if found is None:
        yield f"The critical batch size is not known: {_sentence(target.why_not)}"
        return
    at = found.batch_size
    if found.verdict == ESTIMATE:
        text = f"is {_interval(at, '.3g')}: well below it a larger batch saves steps in proportion, well above it none"
    elif found.verdict == LOWER:
        text = f"is above {at.low or 0:.3g}: within these sizes a larger batch still saves steps, so try larger ones"
    elif found.verdict == UPPER:
        text = f"is below {at.high or 0:.3g}: larger batches save few steps here, so try smaller ones"
    else:
        text = "cannot be estimated from these runs: try more seeds, or sizes further apart"
    yield f"The critical batch size {text}."


def fit_sentences(main: GroupFits, fit: Search | None) -> Iterator[str]:
    oom = sorted({size for size, status, _ in main.ended if status is RunStatus.OOM})
    if oom:
        yield f"Out of memory: {listed(oom)}."
    if fit is None:
        ran = max((size for size, status, _ in main.ended if status is RunStatus.COMPLETED), default=None)
        more = "" if ran is None else f" ({ran} ran)"
        yield f"The largest batch that fits was not searched for{more}: run batchlab find."
    elif fit.largest is None:
        yield f"batchlab find found no size that fits ({printable(fit.status)})."
    else:
        limit = "the free memory of the device" if fit.limit_bytes is None else f"{fit.limit_bytes / MIB:,.0f} MiB"
        unfinished = (
            "" if fit.status == SearchStatus.FOUND else f", though the search ended early ({printable(fit.status)})"
        )
        if fit.larger:
            next_one = f"{fit.larger:,} did not ({printable(fit.outcome)})"
            yield f"The largest micro-batch that fits into {limit} is {fit.largest:,}; {next_one}{unfinished}."
        else:
            yield f"A micro-batch of {fit.largest:,} fits into {limit}; nothing larger was tried{unfinished}."


def limits(main: GroupFits, size: int, fit: Search | None) -> str:
    """What limits the recommended size from above and from below."""
    sizes = main.batch_sizes
    if len(sizes) < 2:
        return "What limits it is not known: only one batch size was tried."
    parts = []
    if size == max(sizes):
        parts.append("it is the largest tried, and a larger one may be better")
    elif size == min(sizes):
        parts.append("it is the smallest tried, and a smaller one may be better")
    if isinstance(main.knee, Knee):
        edge = main.knee.size
        if edge == max(sizes):
            parts.append(f"examples per second increase up to the largest size tried, {edge}")
        else:
            parts.append(
                f"from {edge} on, examples per second increase by less than 10%: there the device is the limit"
            )
    target = main.to_target
    if isinstance(target, ToTarget) and target.critical is not None and target.critical.verdict == ESTIMATE:
        crit = target.critical.batch_size
        if crit.high is not None and size > crit.high:
            parts.append("it is above the critical batch size, so it saves time but needs more examples")
        elif crit.low is not None and size < crit.low:
            parts.append("it is below the critical batch size, so gradient noise does not limit it yet")
    if fit is not None and fit.largest is not None and fit.larger and fit.largest * fit.accumulate < max(sizes):
        parts.append(f"memory limits sizes above {fit.largest * fit.accumulate:,}: use accumulate for them")
    return f"What limits it: {'; '.join(parts)}." if parts else "What limits it is not known."


def of_group(main: GroupFits) -> str:
    """The options that distinguish the group from the study's others, without those of its instruments."""
    name = main.short_name
    return f" (with {name if len(name) <= LONGEST else name[: LONGEST - 3] + '...'})" if name else ""


def _ties(pick: Pick) -> str:
    if not pick.as_good:
        return ""
    others = listed(pick.as_good)
    return f", but is not shown to differ from {others}{' (one seed)' if pick.value.n < 2 else ''}"


def got_worse(runs: pd.DataFrame) -> Iterator[str]:
    """A sentence if the recommended runs ended far above their best loss, by which they were chosen."""
    best, final = (column(runs, name) for name in (VALIDATION_LOSS.best, VALIDATION_LOSS.final))
    was, ended = over_seeds(best), over_seeds(final)
    if was is not None and ended is not None and ended.value > WORSE * was.value > 0:
        yield f"It got worse later: its final validation loss was {ended.value:.4g}, so train for fewer examples."


def _interval(value: Interval, spec: str) -> str:
    text = format(value.value, spec)
    if value.low is None or value.high is None:
        return text
    high = "no upper limit" if math.isinf(value.high) else format(value.high, spec)
    return f"{text} [{format(value.low, spec)}, {high}]"


def _why(part: object) -> str:
    return printable(part) if isinstance(part, Unknown) else "they were not measured"


def _sentence(text: str) -> str:
    return f"{printable(text).rstrip('.')}."
