"""The fits as sentences and tables: the curves through a study's numbers, with their uncertainty."""

from collections.abc import Iterator
from dataclasses import dataclass

from batchlab.printable import NOTHING, as_sentence, printable
from batchlab.records import Unknown
from batchlab.records.quantities import VALIDATION
from batchlab.report.fits.budgets import Budget
from batchlab.report.fits.costs import Choice, Measured, TimeToTarget
from batchlab.report.fits.fits import Fits, GroupFits
from batchlab.report.fits.to_target import ToTarget
from batchlab.report.fits.tournament import Tournament
from batchlab.report.render.content import Table, ends, estimate
from batchlab.science.scaling.knee import Knee, launch_bound
from batchlab.science.statistics.uncertainty import Interval

MIB = 2**20
MOST_GROUPS = 6  # described; report.json has them all
HEADLINES = tuple(metric.name for metric in VALIDATION if metric.headline)  # the others are in report.json


@dataclass(frozen=True)
class Line:
    """One sentence of the fits, with an optional heading before it and table after it."""

    text: str
    title: str = ""
    table: Table | None = None
    label: str = ""  # before the sentence, with a colon


def fits_in_words(fits: Fits) -> Iterator[Line]:
    """Every part of every group, or why it is missing."""
    for group in fits.groups[:MOST_GROUPS]:
        name = printable(group.name) if len(fits.groups) > 1 else ""
        sizes = ", ".join(f"{size:,}" for size in group.batch_sizes)
        seeds = f"{len(group.seeds)} seed{'' if len(group.seeds) == 1 else 's'}"
        title = f"Fits: {name}" if name else "Fits"
        yield Line(f"Batch sizes {sizes}; {seeds}; learning rate {group.rate}.", title)
        for label, text in _parts(group):
            yield Line(text, label=label)
        if isinstance(group.budgets, tuple) and (table := side_by_side(group.budgets)).rows:
            yield Line("The same runs with different quantities held equal:", table=table)
        if isinstance(group.pareto, tuple):
            yield Line(
                "What each batch size costs at its best learning rate; no other size beats those on the front:",
                table=_pareto(group.pareto),
            )
    if len(fits.groups) > MOST_GROUPS:
        yield Line(f"{len(fits.groups) - MOST_GROUPS} more groups of runs are in report.json.")


def _parts(group: GroupFits) -> Iterator[tuple[str, str]]:
    yield "Steps to the target", _to_target(group.to_target)
    if not isinstance(group.to_target, Unknown):
        yield "Time to the target", _time(group.time_to_target)
    yield "Seconds per step", _line(group.seconds_per_step, 1000, "ms", 1000, "ms")
    yield "Throughput knee", _knee(group.knee) + _launch_bound(group)
    yield "Peak memory", _line(group.peak_bytes, 1 / MIB, "MiB", 1 / 1024, "KiB")
    yield "Best learning rate", _learning_rate(group.tournament)
    yield "Noise scale", _noise(group)


def _to_target(found: ToTarget | Unknown) -> str:
    if isinstance(found, Unknown):
        return as_sentence(found.why)
    parts = [f"{found.metric} {found.value:g}"]
    critical = found.critical
    if critical is None:
        return f"{parts[0]}; no critical batch size: {found.why_not}."
    parts.append(f"B_crit {estimate(critical.batch_size, 'examples')}, {critical.verdict}")
    parts.append(f"at least {estimate(critical.steps_min, 'steps')} and {estimate(critical.examples_min, 'examples')}")
    if critical.censored:
        parts.append(f"{critical.censored} of {critical.runs} runs did not reach it")
    parts.append(f"validated every {found.resolution:,.0f} examples")
    return f"{'; '.join(parts)}; the runs deviate by {critical.rms:.1%} from S_min + E_min/B."


def _time(found: TimeToTarget | Unknown) -> str:
    if isinstance(found, Unknown):
        return as_sentence(found.why)
    others = [f"{size:,}" for size in found.as_fast if size != found.fastest]
    ties = f", not shown to differ from {', '.join(others)}" if others else ""
    by_fit = ""
    if found.best is not None:
        by_fit = f"; by the fits the minimum is at {estimate(found.best, 'examples')}"
        by_fit += "" if found.within else ", outside the sizes measured"
    return f"batch size {found.fastest:,} is the fastest{ties}{by_fit}."


def _line(found: Measured | Unknown, start: float, start_unit: str, slope: float, slope_unit: str) -> str:
    if isinstance(found, Unknown):
        return as_sentence(found.why)
    if found.line is None:
        return "a line needs two sizes."
    zero, each = found.line.at_zero, found.line.per_unit
    text = f"{zero.value * start:.3g} {start_unit} + {each.value * slope:.3g} {slope_unit} x batch size"
    if zero.low is not None and zero.high is not None and each.low is not None and each.high is not None:
        text += f" (95%: {zero.low * start:.3g} to {zero.high * start:.3g} and {each.low * slope:.3g} to "
        text += f"{each.high * slope:.3g})"
    return text + "".join(f"; without {runs}" for runs in found.left_out) + "."


def _knee(found: Knee | Unknown) -> str:
    if isinstance(found, Unknown):
        return as_sentence(found.why)
    span = "" if found.low is None else f" ({found.low:,} to {'more' if found.high is None else f'{found.high:,}'})"
    return f"{found.size:,}{span}; the fastest is {found.best_size:,}, {found.best_speed:,.0f} examples per second."


def _launch_bound(group: GroupFits) -> str:
    bound = launch_bound(dict(group.busy))
    if not bound:
        return ""
    sizes = ", ".join(f"{size:,} (busy {share:.0%} of the time)" for size, share in bound.items())
    return f" Launch-bound, so a larger batch saves time on the host and not on the GPU: {sizes}."


def _learning_rate(found: Tournament | Unknown) -> str:
    if isinstance(found, Unknown):
        return as_sentence(found.why)
    best = ", ".join(f"{one.peak_lr:.3g} at {one.batch_size:,}{' (edge)' if one.at_edge else ''}" for one in found.best)
    if found.slope is None:
        return f"{best}; no slope: {found.why_no_slope}."
    return f"{best}; slope on log batch size {estimate(found.slope)} (1 linear, 1/2 square root, 0 none)."


def _noise(group: GroupFits) -> str:
    if isinstance(group.noise_scales, Unknown):
        return as_sentence(group.noise_scales.why)
    by_size = {scale.batch_size: scale.examples for scale in reversed(group.noise_scales)}
    scales = ", ".join(f"{size:,}: {by_size[size].value:,.3g} ({ends(by_size[size])})" for size in sorted(by_size))
    return f"over the training of the first seed, in examples, by batch size: {scales}."


def side_by_side(budgets: tuple[Budget, ...]) -> Table:
    """A row for each batch size, a column for each quantity held equal."""
    kept = [budget for metric in HEADLINES for budget in budgets if budget.metric == metric]
    sizes = sorted({entry.batch_size for budget in kept for entry in budget.sizes})
    titles = ["batch size", *(f"{b.metric} at {b.held_equal}: {_amount(b)} {b.unit}" for b in kept)]
    columns = [{entry.batch_size: _with_ends(entry.value) for entry in budget.sizes} for budget in kept]
    rows = [(f"{size:,}", *(column.get(size, NOTHING) for column in columns)) for size in sizes]
    return Table(tuple(titles), tuple(rows) if kept else ())


def _amount(budget: Budget) -> str:
    return f"{budget.amount:,.0f}" if budget.amount >= 1000 else f"{budget.amount:.4g}"


def _with_ends(interval: Interval) -> str:
    return f"{interval.value:.4g}" + ("" if interval.low is None else f" ({ends(interval)})")


def _pareto(choices: tuple[Choice, ...]) -> Table:
    titles = ("batch size", "learning rate", "seconds", "device seconds", "peak MiB", "best val loss", "on the front")
    rows = [
        (
            *(f"{one.batch_size:,}", f"{one.lr:.3g}", f"{one.seconds:.3g}", f"{one.device_seconds:.3g}"),
            *(f"{one.memory_bytes / MIB:.4g}", f"{one.val_loss:.4g}", "yes" if one.on_front else "no"),
        )
        for one in choices
    ]
    return Table(titles, tuple(rows))
