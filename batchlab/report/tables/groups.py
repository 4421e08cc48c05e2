"""What may be compared: runs that differ in nothing but batch size, seed and learning rate."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd

from batchlab.config.option_row import ALL_OF_A_RUN, Role
from batchlab.config.options import GROUPS, MICRO_BATCHES, PEAK_LEARNING_RATE, SAID_LAST, of_role, that_move
from batchlab.printable import printable
from batchlab.recording.device_models import main_model
from batchlab.recording.files import to_json
from batchlab.records import RunStatus
from batchlab.records.quantities import PEAKS, THROUGHPUT, VALIDATION_LOSS
from batchlab.report.tables.study import Study
from batchlab.science.statistics.uncertainty import Interval, mean_interval

LARGEST = 1e150  # whose square is a number: a loss beyond it is none that was meant
POINT = (*of_role(Role.AXIS), *of_role(Role.REPEATED))
FREE = (*POINT, *of_role(Role.TUNED))
Mean = Callable[[Sequence[float]], Interval]
FEW = 3  # knobs that all stand in a group's name
METRIC = "target.metric"  # in a group's name where the target's value does not tell
ALWAYS_NAMED = (*(f"{group}._target_" for group in GROUPS), "lr_scaling")  # where they vary
# What the columns that a fit reads begin with: each of hundreds would be copied whenever a few runs are picked.
FITTED = (
    *(*FREE, *MICRO_BATCHES, *PEAK_LEARNING_RATE, "stop_at_target", "status", "shared", "device_model"),
    *("steps", "examples", "train_seconds", "target."),
    *(f"{kept}.{VALIDATION_LOSS.name}" for kept in ("best", "final")),
    *(quantity.final for quantity in (*THROUGHPUT, *PEAKS)),
)


class Way(StrEnum):
    """How the learning rate of a batch size came about."""

    FIXED = "fixed"
    SCALED = "scaled"
    TUNED = "tuned"
    CHOSEN = "chosen"


@dataclass(frozen=True)
class Tuning:
    """How the learning rates of runs were set; as text `fixed`, `scaled by linear`, `tuned over 5 rates`."""

    way: Way
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.way} {self.detail}".rstrip()


@dataclass(frozen=True)
class Group:
    """Runs that are equal in all but batch size, seed and rate.

    Its runs have a column more, `other_device`: whether one was made on another model of device than most of them.
    """

    name: str  # the knobs that tell it from the study's other groups, `lr_scaling=linear precision=bf16`; "" for one
    runs: pd.DataFrame  # its rows of `Study.runs`, and of the columns those that fits read
    rate: Tuning

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        return tuple(sorted({int(size) for size in self.runs["batch_size"]}))


def groups(study: Study) -> tuple[Group, ...]:
    """The groups of a study, those with the most batch sizes first, then those with the most runs."""
    if study.runs.empty:
        return ()
    asked = study.asked.reindex(study.runs.index)
    asked = asked[that_move(map(str, asked), ALL_OF_A_RUN, without=FREE)].map(to_json)
    varied = [str(name) for name in asked if asked[name].nunique() > 1]
    keys = asked[varied].apply(tuple, axis=1) if varied else pd.Series([()] * len(asked), index=asked.index)
    fitted = study.runs[[str(name) for name in study.runs.columns if str(name).startswith(FITTED)]]
    named = names(varied, list(dict.fromkeys(keys)))
    found = []
    for key, members in keys.groupby(keys, sort=False):
        runs = fitted.loc[members.index]
        rates = column(runs, "lr").fillna(column(runs, "lr_scaled")).fillna(0.0)
        runs = runs.assign(lr=rates.where(rates < LARGEST, 0.0)).drop_duplicates([*FREE])
        found.append(Group(printable(named[key]), runs.assign(other_device=_on_another_device(runs)), _rate(runs)))
    return tuple(sorted(found, key=lambda group: (-len(group.batch_sizes), -len(group.runs), group.name)))


def names(options: Sequence[str], keys: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """What tells each of `keys`, values as JSON text of `options`, from the others: `lr_scaling=sqrt warmup=0.1`.

    An instrument's options, and the batch size that a rule scales from, are named only where the others do not tell.
    Of more than a few options each key is named by those in which it is not like most of them.
    """
    last = {option: SAID_LAST.get(option.partition(".")[0], 1 if option == METRIC else 0) for option in options}
    for said in (0, 1, max(last.values(), default=0)):
        plain = [i for i, option in enumerate(options) if last[option] <= said]
        if len({tuple(key[i] for i in plain) for key in keys}) == len(keys):
            break
    usual = [Counter(values).most_common(1)[0][0] for values in zip(*keys, strict=True)]
    found = {}
    for key in keys:
        unusual = [i for i in plain if options[i] in ALWAYS_NAMED or key[i] != usual[i]]
        shown = unusual if unusual and len(plain) > FEW else plain
        found[key] = " ".join(f"{options[i]}={key[i].strip(chr(34))}" for i in shown)
    return found


def rate_of(runs: pd.DataFrame) -> Tuning:
    """How the learning rate was set of runs that are compared one to one."""
    rules = sorted(set(runs["lr_scaling"].dropna().astype(str))) if "lr_scaling" in runs else []
    scaled = [rule for rule in rules if rule != "none"]
    return Tuning(Way.SCALED, f"by {' and '.join(scaled)}") if scaled else Tuning(Way.FIXED)


def _rate(runs: pd.DataFrame) -> Tuning:
    rates = runs.groupby("batch_size")["lr"].nunique()
    if rates.max() > 1:
        least, most = rates.min(), rates.max()
        return Tuning(Way.TUNED, f"over {most} rates" if least == most else f"over {least} to {most} rates")
    set_by_rule = rate_of(runs)
    if set_by_rule.way is Way.FIXED and runs["lr"].nunique() > 1:
        return Tuning(Way.CHOSEN, "for each batch size")
    return set_by_rule


def by(runs: pd.DataFrame, name: str) -> dict[float, pd.DataFrame]:
    """The runs at each batch size or rate, in its order; a row for each seed, in theirs."""
    return {float(value): runs[runs[name] == value].sort_values("seed") for value in sorted(runs[name].unique())}


def completed(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that used up their budget, or reached the target that they stop at."""
    return runs[runs["status"] == RunStatus.COMPLETED]


def trained(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that were completed or diverged: the latter were as fast as any, and did not reach their target."""
    return runs[runs["status"].isin((RunStatus.COMPLETED, RunStatus.DIVERGED))]


def lowest_loss(runs: pd.DataFrame) -> "pd.Series[float]":
    """The lowest validation loss of each run; of one without a record of it the last, nan where none was measured."""
    return column(runs, VALIDATION_LOSS.best).fillna(column(runs, VALIDATION_LOSS.final))


def alone(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that had the machine to themselves, and of a group those on one model of device.

    Only their seconds and bytes compare.
    """
    return on_one_model(runs[~flag(runs, "shared_machine")])


def on_one_model(runs: pd.DataFrame) -> pd.DataFrame:
    """Of a group's runs those on the model of device that most of the group were made on."""
    return runs[~flag(runs, "other_device")]


def device_models(runs: pd.DataFrame) -> "pd.Series[str]":
    """The GPU's name of each run, on the CPU the processor's; empty where it was not recorded."""
    given = runs["device_model"] if "device_model" in runs else [None] * len(runs)
    return pd.Series([model if isinstance(model, str) else "" for model in given], index=runs.index, dtype=object)


def _on_another_device(runs: pd.DataFrame) -> "pd.Series[bool]":
    models = device_models(runs)
    main = main_model((model or None, int(size)) for model, size in zip(models, runs["batch_size"], strict=True))
    return ~models.isin(["", main])


def flag(runs: pd.DataFrame, name: str) -> "pd.Series[bool]":
    """Where a column says true; nowhere where no run has it."""
    return runs[name].isin([True]) if name in runs else pd.Series(False, index=runs.index)


def _mean(values: Sequence[float]) -> Interval:
    # A generator of its own, always at the same place: a report says the same of the same runs.
    return mean_interval(values, np.random.default_rng(0))


def over_seeds(values: Iterable[float], mean: Mean = _mean) -> Interval | None:
    """The mean of one value per seed, with its interval; None where there is none that is finite."""
    finite = [float(value) for value in values if abs(value) < LARGEST]
    return mean(finite) if finite else None


def column(runs: pd.DataFrame, name: str) -> "pd.Series[float]":
    """A column as numbers; nan throughout where no run has it."""
    if name not in runs:
        return pd.Series(np.nan, index=runs.index)
    values = pd.to_numeric(runs[name], errors="coerce").astype(float)
    if not (np.abs(values.to_numpy()) >= LARGEST).any():  # as ever; it is called a thousand times
        return values
    return values.where(values.abs() < LARGEST, values * np.inf)
