"""Two studies side by side: differences in their settings, at the same points, and in the same claims."""

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

# Facts other than options that can make a difference.
FACTS = (
    *("n_train", "parameters", "data_fingerprint", "code_fingerprint"),
    *("environment.cpu", "environment.device_name", "environment.device_bytes"),
    *("environment.packages.torch", "environment.torch_cuda", "environment.cudnn"),
)
NOT_OF_ONE_DEVICE = "their seconds and peaks are not compared"


@dataclass(frozen=True)
class Setting:
    """An option, or a fact of the machine, that differs between the studies, with its printed values in each."""

    name: str
    first: tuple[str, ...]
    second: tuple[str, ...]

    @property
    def throughout(self) -> bool:
        """Whether each study has one value of it: then it is a difference of the studies, not an axis of a grid."""
        return len(self.first) == len(self.second) == 1


@dataclass(frozen=True)
class Measured:
    """One quantity at one batch size, over the points that both studies have, paired seed by seed."""

    quantity: str
    batch_size: int
    first: float  # mean over the pairs
    second: float
    relative: bool  # whether `change` is second / first (a geometric mean), and not second - first
    change: Interval  # over seeds; a seed's points with several settings are averaged
    pairs: int


@dataclass(frozen=True)
class Between:
    """One comparison of a claim that both studies made; effects are positive if they support the claim."""

    what: str
    held_equal: str
    set_by: tuple[Tuning, Tuning]  # how the learning rate was set
    unit: str
    first: Interval
    second: Interval
    change: Interval  # second - first, as independent samples


@dataclass(frozen=True)
class ClaimPair:
    """What both studies say about one claim."""

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
    notes: tuple[str, ...]  # what is missing, and what the numbers do not show


def compare(studies: tuple[Study, Study], claims: tuple[Sequence[Claim], Sequence[Claim]]) -> Comparison:
    """Pairs points that are equal in all options that vary within the studies, and comparisons of the same name.

    Points are paired across an option with one value in each study, such as width 128 in one and 256 in the other.
    """
    settings = tuple(_settings(*studies))
    pairs, notes = _pairs(studies, settings)
    measured = tuple(_measured(studies, pairs, same_target=not any(s.name.startswith("target.") for s in settings)))
    names = _names(studies)
    return Comparison(names, settings, measured, tuple(_claim_pairs(*claims)), (*notes, *_missing(studies)))


def _names(studies: tuple[Study, Study]) -> tuple[str, str]:
    """Their names, or their folders if both have the same name."""
    first, second = (printable(study.name) for study in studies)
    return (first, second) if first != second else (printable(studies[0].folder), printable(studies[1].folder))


def _settings(first: Study, second: Study) -> Iterator[Setting]:
    if first.runs.empty or second.runs.empty:
        return
    measured_by = [_instruments(study.requested) for study in (first, second)]
    if set(measured_by[0]) != set(measured_by[1]):
        yield Setting("instruments", *measured_by)
    options = [str(name) for name in dict.fromkeys([*first.requested, *second.requested])]
    # The options of an instrument that only one of them has add nothing.
    known = set(measured_by[0]) & set(measured_by[1])
    options = [name for name in options if not name.startswith("instruments.") or name.split(".")[1] in known]
    for one, other, names in ((first.requested, second.requested, options), (first.runs, second.runs, FACTS)):
        for name in names:
            a, b = _values(one, name), _values(other, name)
            if set(a) != set(b):
                yield Setting(name, a, b)


def _instruments(requested: pd.DataFrame) -> tuple[str, ...]:
    """The instruments that any run of the study had."""
    return tuple(sorted({str(name).split(".")[1] for name in requested if str(name).startswith("instruments.")}))


def _values(table: pd.DataFrame, name: str) -> tuple[str, ...]:
    """The different values of a column, as printed, in order; a missing column counts as null."""
    found = {_cell(value) for value in table[name]} if name in table else {"null"}
    return tuple(sorted(found, key=lambda text: (_number(text), text)))


def _cell(value: Any) -> str:
    """The same text for 20 and 20.0, since a column with a gap holds floats."""
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
    """The run ids of points that both have, and notes about the points that have no pair."""
    if any(study.runs.empty for study in studies):
        return [], []
    across = {setting.name for setting in settings if setting.throughout}
    names = dict.fromkeys(str(name) for study in studies for name in study.requested)
    key = results_of(names, without=across)
    found = [_by_key(study.requested, [*POINT, *key]) for study in studies]
    shared = [at for at in found[0] if at in found[1]]
    pairs = [(found[0][at][0], found[1][at][0]) for at in shared if len(found[0][at]) == len(found[1][at]) == 1]
    notes = []
    if not pairs:
        notes.append("The studies have no point in common: nothing can be paired.")
    if unclear := len(shared) - len(pairs):
        notes.append(f"{counted(unclear, 'point')} left out: a study has several runs of it.")
    models = [device_models(study.runs).to_dict() for study in studies]
    if on_two := sum(_models_differ(models[0][one], models[1][other]) for one, other in pairs):
        notes.append(f"{counted(on_two, 'pair')} of {len(pairs)} ran on different devices: {NOT_OF_ONE_DEVICE}.")
    if again := sum(one == other for one, other in pairs):
        notes.append(f"{counted(again, 'pair')} of {len(pairs)}: the same point, run twice.")
    return pairs, notes


def _by_key(requested: pd.DataFrame, key: Sequence[str]) -> dict[tuple[str, ...], list[str]]:
    columns = [
        [_cell(v) for v in requested[name]] if name in requested else ["null"] * len(requested)
        for name in dict.fromkeys(key)
    ]
    found: dict[tuple[str, ...], list[str]] = {}
    for run_id, *values in zip(requested.index, *columns, strict=True):
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
            same_model = not _models_differ(one.get("device_model"), other.get("device_model"))
            if clocked and (one["shared_machine"] or other["shared_machine"] or not same_model):
                continue
            a, b = _value(one, column), _value(other, column)
            if a is not None and b is not None and (not relative or min(a, b) > 0):
                seeds = sizes.setdefault(int(one["batch_size"]), {})
                seeds.setdefault(int(one["seed"]), []).append((a, b))
        for batch_size, by_seed in sorted(sizes.items()):
            yield _row(quantity, batch_size, by_seed, relative=relative)


def _models_differ(one: object, other: object) -> bool:
    """Whether two runs were made on different models of GPU, or of processor, as far as recorded."""
    return isinstance(one, str) and isinstance(other, str) and "" not in (one, other) and one != other


def _value(run: Mapping[Any, Any], column: str) -> float | None:
    """A finite number of a completed run; for a target only if it was reached."""
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
    """Comparisons of the same name; if several differ in learning rate, those that set it the same way."""
    left = list(second)
    for one in first:
        same = [o for o in left if (o.what, o.held_equal, o.unit) == (one.what, one.held_equal, one.unit)]
        if not same:
            continue
        other = max(same, key=lambda o: (o.rate == one.rate, o.rate.way is one.rate.way))
        if len(same) > 1 and other.rate.way is not one.rate.way:
            continue
        left.remove(other)
        a, b = one.effect.interval, other.effect.interval
        yield Between(one.what, one.held_equal, (one.rate, other.rate), one.unit, a, b, difference(b, a))


def _missing(studies: tuple[Study, Study]) -> Iterator[str]:
    for study, name in zip(studies, _names(studies), strict=True):
        if study.runs.empty:
            yield f"{name} has no readable run."
            continue
        ended = Counter(str(status) for status in study.runs["status"])
        if set(ended) != {RunStatus.COMPLETED}:
            yield f"{name}: {', '.join(f'{n} {printable(status)}' for status, n in ended.most_common())}."
        if shared := int(study.runs["shared_machine"].eq(True).sum()):
            are = "is" if shared == 1 else "are"
            yield f"{name}: {counted(shared, 'run')} shared the machine, and {are} not compared in speed or memory."
        yield from (f"{name}: {sentence}" for sentence in study.damaged[:3])
        if len(study.damaged) > 3:
            yield f"{name}: and {len(study.damaged) - 3} more that could not be read."
