"""Two studies side by side: what differs in their settings, in the same points, and in the same claims."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from batchlab.config.key import results_of
from batchlab.printable import counted, printable
from batchlab.records import RunStatus
from batchlab.records.declared import Quantities
from batchlab.report.claims.claim import Claim, Evidence
from batchlab.report.compare.compared_quantities import compared
from batchlab.report.tables.groups import POINT, Tuning, device_models
from batchlab.report.tables.study import Study
from batchlab.science.statistics.samples import difference
from batchlab.science.statistics.uncertainty import Interval, t_interval
from batchlab.science.statistics.verdicts import Verdict

# Facts beside the knobs that can make a difference.
FACTS = (
    *("n_train", "parameters", "data_fingerprint", "code_fingerprint"),
    *("environment.cpu", "environment.device_name", "environment.device_bytes"),
    *("environment.packages.torch", "environment.torch_cuda", "environment.cudnn"),
)
NOT_OF_ONE_DEVICE = "their seconds and peaks are not compared"


@dataclass(frozen=True)
class Setting:
    """A knob, or a fact of the machine, that is not the same in both studies; its values in each, as printed."""

    name: str
    first: tuple[str, ...]
    second: tuple[str, ...]

    @property
    def throughout(self) -> bool:
        """Whether each study has one value of it: then it is what the studies differ in, not a point of a grid."""
        return len(self.first) == len(self.second) == 1


@dataclass(frozen=True)
class Measured:
    """One quantity at one batch size, over the points that both studies have, paired seed by seed."""

    quantity: str
    batch_size: int
    first: float  # mean over the pairs
    second: float
    relative: bool  # whether `change` is second / first (a geometric mean), and not second - first
    change: Interval  # over seeds; of a seed's points with other settings the mean counts
    pairs: int


@dataclass(frozen=True)
class Between:
    """One comparison of a claim that both studies made; effects are positive where they speak for the claim."""

    what: str
    held_equal: str
    rates: tuple[Tuning, Tuning]
    unit: str
    first: Interval
    second: Interval
    change: Interval  # second - first, as of samples drawn apart


@dataclass(frozen=True)
class ClaimPair:
    """What both studies say of one claim."""

    id: str
    statement: str
    verdicts: tuple[Verdict, Verdict]
    between: tuple[Between, ...]


@dataclass(frozen=True)
class Comparison:
    """Two studies side by side."""

    names: tuple[str, str]
    settings: tuple[Setting, ...]
    measured: tuple[Measured, ...]
    claims: tuple[ClaimPair, ...]
    notes: tuple[str, ...]  # what is missing, and what the numbers do not say


def compare(studies: tuple[Study, Study], claims: tuple[Sequence[Claim], Sequence[Claim]]) -> Comparison:
    """Pairs points that are equal in all that varies within the studies, and comparisons that are called the same.

    A knob that has one value in each study is what they differ in and parts no pair: width 128 here and 256 there.
    """
    settings = tuple(_settings(*studies))
    pairs, notes = _pairs(studies, settings)
    measured = tuple(_measured(studies, pairs, same_target=not any(s.name.startswith("target.") for s in settings)))
    names = _names(studies)
    return Comparison(names, settings, measured, tuple(_claim_pairs(*claims)), (*notes, *_missing(studies)))


def _names(studies: tuple[Study, Study]) -> tuple[str, str]:
    """By their names; by their folders where two are called the same."""
    first, second = (printable(study.name) for study in studies)
    return (first, second) if first != second else (printable(studies[0].folder), printable(studies[1].folder))


def _settings(first: Study, second: Study) -> Iterator[Setting]:
    if first.runs.empty or second.runs.empty:
        return
    measured_by = [_instruments(study.asked) for study in (first, second)]
    if set(measured_by[0]) != set(measured_by[1]):
        yield Setting("instruments", *measured_by)
    knobs = [str(name) for name in dict.fromkeys([*first.asked, *second.asked])]
    # Of an instrument that only one of them has the options say nothing more.
    known = set(measured_by[0]) & set(measured_by[1])
    knobs = [name for name in knobs if not name.startswith("instruments.") or name.split(".")[1] in known]
    for one, other, names in ((first.asked, second.asked, knobs), (first.runs, second.runs, FACTS)):
        for name in names:
            a, b = _values(one, name), _values(other, name)
            if set(a) != set(b):
                yield Setting(name, a, b)


def _instruments(asked: pd.DataFrame) -> tuple[str, ...]:
    """Those that a run of the study had."""
    return tuple(sorted({str(name).split(".")[1] for name in asked if str(name).startswith("instruments.")}))


def _values(table: pd.DataFrame, name: str) -> tuple[str, ...]:
    """The different values of a column, as printed, in order; a column that is not there is null throughout."""
    found = {_cell(value) for value in table[name]} if name in table else {"null"}
    return tuple(sorted(found, key=lambda text: (_number(text), text)))


def _cell(value: Any) -> str:
    """20 and 20.0 alike: a column with a gap is one of floats."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "null"
    if isinstance(value, str):
        return printable(value)
    try:
        return f"{float(value):.12g}" if str(value) not in ("True", "False") else str(value).lower()
    except (TypeError, ValueError, OverflowError):
        return printable(value)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.inf


def _pairs(studies: tuple[Study, Study], settings: Sequence[Setting]) -> tuple[list[tuple[str, str]], list[str]]:
    """The run ids of points that both have, and what is to be said of those that have no such pair."""
    if any(study.runs.empty for study in studies):
        return [], []
    apart = {setting.name for setting in settings if setting.throughout}
    names = dict.fromkeys(str(name) for study in studies for name in study.asked)
    key = results_of(names, without=apart)
    found = [_by_key(study.asked, [*POINT, *key]) for study in studies]
    shared = [at for at in found[0] if at in found[1]]
    pairs = [(found[0][at][0], found[1][at][0]) for at in shared if len(found[0][at]) == len(found[1][at]) == 1]
    notes = []
    if not pairs:
        notes.append("No point of one study has its like in the other: nothing can be paired.")
    if unclear := len(shared) - len(pairs):
        notes.append(f"{counted(unclear, 'setting')} left out: several runs of a study have it.")
    models = [device_models(study.runs).to_dict() for study in studies]
    if on_two := sum(_models_differ(models[0][one], models[1][other]) for one, other in pairs):
        notes.append(f"{counted(on_two, 'pair')} of {len(pairs)} ran on different devices: {NOT_OF_ONE_DEVICE}.")
    if again := sum(one == other for one, other in pairs):
        notes.append(f"{counted(again, 'pair')} of {len(pairs)}: the same point, run twice.")
    return pairs, notes


def _by_key(asked: pd.DataFrame, key: Sequence[str]) -> dict[tuple[str, ...], list[str]]:
    columns = [
        [_cell(v) for v in asked[name]] if name in asked else ["null"] * len(asked) for name in dict.fromkeys(key)
    ]
    found: dict[tuple[str, ...], list[str]] = {}
    for run_id, *values in zip(asked.index, *columns, strict=True):
        found.setdefault(tuple(values), []).append(str(run_id))
    return found


def _measured(
    studies: tuple[Study, Study], pairs: Sequence[tuple[str, str]], *, same_target: bool
) -> Iterator[Measured]:
    tables = [{str(run_id): run for run_id, run in study.runs.to_dict("index").items()} for study in studies]
    matched = [(tables[0][one], tables[1][other]) for one, other in pairs if one in tables[0] and other in tables[1]]
    for column, quantity, relative, clocked in compared(Quantities((*studies[0].declared, *studies[1].declared))):
        if column == "target.examples" and not same_target:
            continue
        sizes: dict[int, dict[int, list[tuple[float, float]]]] = {}
        for one, other in matched:
            alike = not _models_differ(one.get("device_model"), other.get("device_model"))
            if clocked and (one["shared_machine"] or other["shared_machine"] or not alike):
                continue
            a, b = _value(one, column), _value(other, column)
            if a is not None and b is not None and (not relative or min(a, b) > 0):
                seeds = sizes.setdefault(int(one["batch_size"]), {})
                seeds.setdefault(int(one["seed"]), []).append((a, b))
        for batch_size, by_seed in sorted(sizes.items()):
            yield _row(quantity, batch_size, by_seed, relative=relative)


def _models_differ(one: object, other: object) -> bool:
    """Whether two runs were made on different models of GPU, or of processor, as far as it was recorded."""
    return isinstance(one, str) and isinstance(other, str) and "" not in (one, other) and one != other


def _value(run: Mapping[Any, Any], column: str) -> float | None:
    """A completed run's finite number; of a target, where it was reached."""
    if run["status"] != RunStatus.COMPLETED or (column == "target.examples" and run.get("target.reached") is not True):
        return None
    try:
        value = float(run.get(column, math.nan))
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _row(
    quantity: str, batch_size: int, seeds: Mapping[int, Sequence[tuple[float, float]]], *, relative: bool
) -> Measured:
    everything = [pair for pairs in seeds.values() for pair in pairs]
    means = [math.fsum(side) / len(everything) for side in zip(*everything, strict=True)]
    changes = [
        math.fsum(math.log(b / a) if relative else b - a for a, b in pairs) / len(pairs) for pairs in seeds.values()
    ]
    change = t_interval(changes)
    if relative:
        ends = [None if end is None else math.exp(min(end, 700.0)) for end in (change.low, change.high)]
        change = Interval(math.exp(change.value), ends[0], ends[1], change.n)
    return Measured(quantity, batch_size, means[0], means[1], relative, change, len(everything))


def _claim_pairs(first: Sequence[Claim], second: Sequence[Claim]) -> Iterator[ClaimPair]:
    others = {claim.id: claim for claim in second}
    for claim in first:
        if (other := others.get(claim.id)) is not None:
            between = tuple(_between(claim.evidence, other.evidence))
            yield ClaimPair(claim.id, claim.statement, (claim.verdict, other.verdict), between)


def _between(first: Sequence[Evidence], second: Sequence[Evidence]) -> Iterator[Between]:
    """Comparisons that are called the same; of several with other rates, those whose rate is chosen the same way."""
    left = list(second)
    for one in first:
        alike = [o for o in left if (o.what, o.held_equal, o.unit) == (one.what, one.held_equal, one.unit)]
        if not alike:
            continue
        other = max(alike, key=lambda o: (o.rate == one.rate, o.rate.way is one.rate.way))
        if len(alike) > 1 and other.rate.way is not one.rate.way:
            continue
        left.remove(other)
        a, b = one.effect.interval, other.effect.interval
        yield Between(one.what, one.held_equal, (one.rate, other.rate), one.unit, a, b, difference(b, a))


def _missing(studies: tuple[Study, Study]) -> Iterator[str]:
    for study, name in zip(studies, _names(studies), strict=True):
        if study.runs.empty:
            yield f"{name} has no run that could be read."
            continue
        ended = Counter(str(status) for status in study.runs["status"])
        if set(ended) != {RunStatus.COMPLETED}:
            yield f"{name}: {', '.join(f'{n} {printable(status)}' for status, n in ended.most_common())}."
        if shared := int(study.runs["shared_machine"].eq(True).sum()):
            yield f"{name}: {counted(shared, 'run')} shared the machine, and are in no comparison of speed or memory."
        yield from (f"{name}: {sentence}" for sentence in study.damaged[:3])
        if len(study.damaged) > 3:
            yield f"{name}: and {len(study.damaged) - 3} more that could not be read."
