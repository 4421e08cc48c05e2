"""The sentences of a recommendation: what to use and why, what else is best at something, what limits it."""

import math
import re
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
from batchlab.science.scaling.critical_batch import ESTIMATE, LOWER, UPPER
from batchlab.science.scaling.knee import Knee
from batchlab.science.statistics.uncertainty import Interval

MIB = 2**20
INSTRUMENTS = re.compile(r"(?:^|\s)instruments\.[^\s=]+=(?:\[[^\]]*\]|\S*)")
WORSE = 1.25  # times its best: a loss that ends above has been better before
LONGEST = 100  # characters of a group's name


def use(main: GroupFits, size: int, lr: float, fastest: Pick | None, cheapest: Pick | None, loss: Pick | None) -> str:
    """The first sentence: what to use and why."""
    start = f"Use batch size {size} at a learning rate of {lr:.4g}{of_group(main)}:"
    target = main.to_target
    if isinstance(target, ToTarget) and fastest is not None:
        seconds = _interval(fastest.value, ".3g")
        why = f"it was the fastest to {printable(target.metric)} {target.value:g}, {seconds} seconds of training"
        return f"{start} {why}{_not_told(fastest)}."
    if isinstance(target, ToTarget) and cheapest is not None:
        why = f"it took the fewest examples to {printable(target.metric)} {target.value:g}{_not_told(cheapest)}"
        return f"{start} {why}; no times can be compared ({_why(main.time_to_target)})."
    assert loss is not None  # or nothing was chosen
    if size == loss.batch_size:
        return (
            f"{start} at its best it had the lowest validation loss, {_interval(loss.value, '.4g')}{_not_told(loss)}."
        )
    best = f"the lowest, {_interval(loss.value, '.4g')} at {loss.batch_size}"
    return f"{start} its validation loss cannot be told from {best}, and of those it trained in the least time."


def other_picks(
    main: GroupFits, size: int, fastest: Pick | None, cheapest: Pick | None, loss: Pick | None
) -> Iterator[str]:
    target = main.to_target
    if cheapest is not None and fastest is not None:
        examples = f"{_interval(cheapest.value, ',.0f')} examples to the target"
        same = "It is also the cheapest" if cheapest.batch_size == size else f"The cheapest is {cheapest.batch_size}"
        yield f"{same}, with {examples}{_not_told(cheapest)}."
    if isinstance(target, Unknown):
        yield f"How fast each is to a given quality is not known: {_sentence(target.why)}"
    elif missed := [str(s.batch_size) for s in target.sizes if not s.reached]:
        yield f"Not every seed reached the target at {listed(missed)}."
    if loss is None and isinstance(target, ToTarget):
        yield "The best validation loss is not known: runs ended at the target, or measured none."
    elif loss is not None and fastest is not None:
        same = "It also had the lowest validation loss" if loss.batch_size == size else "The lowest validation loss"
        at = "" if loss.batch_size == size else f" at {loss.batch_size}"
        yield f"{same}, {_interval(loss.value, '.4g')}{at}{_not_told(loss)}."


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
        told = f"is {_interval(at, '.3g')}: well below it a larger batch saves steps in proportion, well above it none"
    elif found.verdict == LOWER:
        told = f"is above {at.low or 0:.3g}: within these sizes a larger batch still saves steps, so try larger ones"
    elif found.verdict == UPPER:
        told = f"is below {at.high or 0:.3g}: larger batches save few steps here, so try smaller ones"
    else:
        told = "is not resolved by these runs: more seeds, or sizes further apart, would tell"
    yield f"The critical batch size {told}."


def fit_sentences(main: GroupFits, fit: Search | None) -> Iterator[str]:
    oom = sorted({size for size, status, _ in main.ended if status is RunStatus.OOM})
    if oom:
        yield f"Out of memory: {listed(oom)}."
    if fit is None:
        ran = max((size for size, status, _ in main.ended if status is RunStatus.COMPLETED), default=None)
        more = "" if ran is None else f" ({ran} ran)"
        yield f"The largest batch that fits was not looked for{more}: batchlab find."
    elif fit.largest is None:
        yield f"batchlab find came to no size that fits ({printable(fit.status)})."
    else:
        limit = "what the device had free" if fit.limit_bytes is None else f"{fit.limit_bytes / MIB:,.0f} MiB"
        next_one = (
            f"; {fit.larger:,} did not ({printable(fit.outcome)})" if fit.larger else "; nothing larger was tried"
        )
        unfinished = "" if fit.status == "found" else f", though the search ended early ({printable(fit.status)})"
        yield f"The largest micro-batch that fits into {limit} is {fit.largest:,}{next_one}{unfinished}."


def limits(main: GroupFits, size: int, fit: Search | None) -> str:
    """What keeps the recommended size from being larger, and from being smaller."""
    sizes = main.batch_sizes
    if len(sizes) < 2:
        return "Nothing says what limits it: one batch size was tried."
    parts = []
    if size == max(sizes):
        parts.append("it is the largest tried, and a larger one may do better")
    elif size == min(sizes):
        parts.append("it is the smallest tried, and a smaller one may do better")
    if isinstance(main.knee, Knee):
        edge = main.knee.size
        if edge == max(sizes):
            parts.append(f"examples per second rise up to the largest size tried, {edge}")
        else:
            parts.append(f"from {edge} on examples per second rise by less than 10%: there the device is the limit")
    target = main.to_target
    if isinstance(target, ToTarget) and target.critical is not None and target.critical.verdict == ESTIMATE:
        crit = target.critical.batch_size
        if crit.high is not None and size > crit.high:
            parts.append("it lies above the critical batch size, so it buys time with examples")
        elif crit.low is not None and size < crit.low:
            parts.append("it lies below the critical batch size, so the gradient's noise does not limit it yet")
    if fit is not None and fit.largest is not None and fit.largest * fit.accumulate < max(sizes):
        parts.append(f"memory limits what is tried above {fit.largest * fit.accumulate:,}: accumulate beyond")
    return f"What limits it: {'; '.join(parts)}." if parts else "What limits it was not resolved."


def of_group(main: GroupFits) -> str:
    """The knobs that tell the group from the study's others, without the many of its instruments."""
    name = printable(INSTRUMENTS.sub("", main.name))
    return f" (with {name if len(name) <= LONGEST else name[: LONGEST - 3] + '...'})" if name else ""


def _not_told(pick: Pick) -> str:
    if not pick.as_good:
        return ""
    others = listed(pick.as_good)
    return f", and one seed cannot tell it from {others}" if pick.value.n < 2 else f", and cannot be told from {others}"


def got_worse(runs: pd.DataFrame) -> Iterator[str]:
    """Where the recommended runs ended far above their best: the number that was chosen by is none they end at."""
    best, final = (column(runs, name) for name in (VALIDATION_LOSS.best, VALIDATION_LOSS.final))
    was, ended = over_seeds(best), over_seeds(final)
    if was is not None and ended is not None and ended.value > WORSE * was.value > 0:
        yield f"It did not stay there: at the end its validation loss was {ended.value:.4g}, so train for less."


def _interval(value: Interval, spec: str) -> str:
    text = format(value.value, spec)
    if value.low is None or value.high is None:
        return text
    high = "no upper end" if math.isinf(value.high) else format(value.high, spec)
    return f"{text} [{format(value.low, spec)}, {high}]"


def _why(part: object) -> str:
    return printable(part) if isinstance(part, Unknown) else "they were not measured"


def _sentence(text: str) -> str:
    return f"{printable(text).rstrip('.')}."
