"""The content of a report, as sentences and tables that the terminal, Markdown and HTML show in their own ways."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchlab.printable import NOTHING, counted, listed, printable, signed
from batchlab.recording.device_models import measured_on
from batchlab.records import RunStatus
from batchlab.records.quantities import VALIDATION_LOSS
from batchlab.report.claims.claim import Claim, Evidence
from batchlab.report.claims.settings import SHARE_OF_SIZES
from batchlab.report.tables.groups import device_models
from batchlab.report.tables.study import Study
from batchlab.science.statistics.uncertainty import Interval
from batchlab.science.statistics.verdicts import Verdict

if TYPE_CHECKING:
    from batchlab.report.compare.published import ComparedFigure
    from batchlab.report.report import Report

CLAIM_TITLES = ("claim", "verdict", "effect", "95% interval", "seeds", "held equal", "learning rate")


@dataclass(frozen=True)
class Table:
    """Cells under titles, with an optional sentence below."""

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Missing:
    """What the study does not show, and the command that would show it, if there is one."""

    what: str
    command: str = ""


def claims_table(claims: tuple[Claim, ...]) -> Table:
    """A row for each claim, with the comparison that decided it."""
    tested = sum(claim.verdict is not Verdict.NOT_TESTED for claim in claims)
    note = f"{counts_of_verdicts(claims)}. Effects are in the claim's direction: above 0 supports it"
    note += f"; p values are corrected for the {counted(tested, 'claim')} tested (Holm)." if tested else "."
    return Table(CLAIM_TITLES, tuple(_claim_row(claim) for claim in claims), note)


def counts_of_verdicts(claims: tuple[Claim, ...]) -> str:
    """`2 supported, 6 inconclusive`."""
    counts = Counter(claim.verdict for claim in claims)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])


def deciding(claim: Claim) -> Evidence | None:
    """The comparison shown next to the verdict: the one with the smallest p."""
    if not claim.evidence:
        return None
    return min(claim.evidence, key=lambda evidence: 2.0 if evidence.effect.p is None else evidence.effect.p)


def _claim_row(claim: Claim) -> tuple[str, ...]:
    evidence = deciding(claim)
    if evidence is None:
        return (claim.id, str(claim.verdict), *[NOTHING] * (len(CLAIM_TITLES) - 2))
    more = f" (1 of {len(claim.evidence)})" if len(claim.evidence) > 1 else ""
    return (
        claim.id,
        str(claim.verdict),
        effect(evidence),
        ends(evidence.effect.interval),
        str(evidence.seeds),
        evidence.held_equal + more,
        str(evidence.rate),
    )


def effect(evidence: Evidence) -> str:
    """`+0.031 loss`."""
    value = evidence.effect.interval.value
    number = NOTHING if math.isnan(value) else signed(value)
    return f"{number} {evidence.unit}".strip()


def ends(interval: Interval) -> str:
    """`0.02 to 0.05`, or a dash without an interval."""
    if interval.low is None or interval.high is None:
        return NOTHING
    return f"{interval.low:.3g} to {interval.high:.3g}"


def estimate(interval: Interval | None, unit: str = "") -> str:
    """`67 (51 to 88, n 3)`."""
    if interval is None:
        return NOTHING
    text = f"{interval.value:,.4g}" + (f" {unit}" if unit else "")
    return f"{text} ({ends(interval)}, n {interval.n})" if interval.low is not None else f"{text} (n {interval.n})"


def published_table(published: "tuple[ComparedFigure, ...]") -> Table:
    """A row for each published figure, with ours; no rows if the study names none."""
    rows = []
    for figure in published:
        theirs, size = figure.theirs, figure.theirs.batch_size
        low, high = (f"{end:,.4g}" for end in theirs.value)
        value = low if low == high else f"{low} to {high}"
        value += "" if theirs.spread is None else f" (+- {theirs.spread:.2g})"
        ours = estimate(figure.ours) if figure.ours is not None else figure.why_not or NOTHING
        ours += f"; {figure.note}" if figure.note else ""
        at = NOTHING if size is None else f"{size:,}"
        rows.append((printable(theirs.what), at, value, printable(ours), printable(theirs.source)))
    note = (
        "Ours are means over seeds at each batch size's best learning rate, over completed runs. The experiment's file "
        "says where model, data or budget differ from theirs."
    )
    return Table(("published", "batch size", "theirs", "ours", "source"), tuple(rows), note if rows else "")


def summary(study: Study) -> str:
    """`12 runs: 11 completed, 1 oom; batch sizes 8, 32 and 128; 3 seeds.`"""
    runs = study.runs
    if runs.empty:
        return "No runs."
    counts = Counter(map(str, runs["status"]))
    statuses = ", ".join(f"{counts[status]} {status}" for status in RunStatus if counts[status])
    sizes = sorted({int(size) for size in runs["batch_size"]})
    listed = ", ".join(f"{size:,}" for size in (sizes if len(sizes) <= 12 else [*sizes[:6], *sizes[-5:]]))
    seeds = int(runs["seed"].nunique())
    shown = listed if len(sizes) <= 12 else f"{len(sizes)} of them, {listed}"
    return (
        f"{counted(len(runs), 'run')}: {statuses}; batch size{'s' if len(sizes) > 1 else ''} {shown}; "
        f"{counted(seeds, 'seed')}. {measured_on(devices(study), 'run')}".rstrip()
    )


def devices(study: Study) -> dict[str, int]:
    """The models of GPU or processor that its runs were made on, with the number of runs."""
    ran = study.runs[study.runs["attempts"] != 0]
    return dict(Counter(model for model in device_models(ran) if model))


def what_is_missing(report: "Report") -> Iterator[Missing]:
    """Runs without a final result, unreadable files and untested claims, with what to do about each."""
    study = report.study
    for damage in study.damaged:
        yield Missing(printable(damage))
    ended: dict[tuple[str, str], list[str]] = {}
    for run_id, run in study.runs.iterrows():
        if run["status"] != RunStatus.COMPLETED:
            ended.setdefault((str(run["status"]), printable(run["reason"] or "")), []).append(printable(run_id))
    for (status, reason), ids in ended.items():
        named = listed(ids, 3, last=", ")
        yield Missing(f"{counted(len(ids), 'run')} {status} ({named})" + (f": {reason}" if reason else ""))
    most = max((len(group.batch_sizes) for group in report.fits.groups), default=0)
    few = [group for group in report.fits.groups if 2 <= len(group.batch_sizes) < SHARE_OF_SIZES * most]
    if few:
        names = listed((group.name for group in few), 3, last=", ")
        yield Missing(
            f"Trends over batch sizes leave out {names}: fewer than {SHARE_OF_SIZES:.0%} of the {most} sizes."
        )
    for claim in report.claims:
        if claim.verdict is Verdict.NOT_TESTED:
            yield Missing(f"{claim.id} not tested: {sentence(claim.why)}", claim.command)
        elif claim.verdict is Verdict.INCONCLUSIVE and claim.seeds_needed is not None:
            more = f" About {counted(claim.seeds_needed, 'seed')} would decide it."
            yield Missing(f"{claim.id} inconclusive: {sentence(claim.why)}{more}")


def sentence(text: str) -> str:
    """`text` with a full stop; the first letter stays, as it may belong to a name."""
    return f"{printable(text).rstrip('.')}." if text else ""


def runs_table(study: Study) -> Table:
    """Each run, with how it ended and its results."""
    titles = ("batch size", "seed", "status", VALIDATION_LOSS.label, "examples", "seconds", "run", "reason")
    rows = []
    for run_id, run in study.runs.iterrows():
        loss = run.get(VALIDATION_LOSS.final)
        rows.append(
            (
                *(f"{int(run['batch_size']):,}", str(run["seed"]), str(run["status"])),
                VALIDATION_LOSS.written(None if loss is None or loss != loss else float(loss)),
                *(f"{int(run['examples']):,}", f"{float(run['train_seconds']):.2f}"),
                *(printable(run_id), printable(run["reason"] or "")),
            )
        )
    return Table(titles, tuple(rows))
