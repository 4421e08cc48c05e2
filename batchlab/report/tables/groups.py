"""What may be compared: runs that differ in nothing but batch size, seed and learning rate."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd

from batchlab.config.option_row import ALL_OF_A_RUN, Role
from batchlab.config.options import GROUPS, MICRO_BATCHES, NAMING_LEVELS, PEAK_LR_OPTIONS, of_role, that_move
from batchlab.printable import printable
from batchlab.recording.device_models import main_model
from batchlab.recording.files import to_json
from batchlab.records import RunStatus
from batchlab.records.quantities import PEAKS, THROUGHPUT, VALIDATION_LOSS
from batchlab.report.tables.study import Study
from batchlab.science.statistics.uncertainty import Interval, mean_interval

LARGEST = 1e150  # its square is finite; a larger value is an overflow, not a loss
POINT = (*of_role(Role.AXIS), *of_role(Role.REPEATED))
FREE = (*POINT, *of_role(Role.TUNED))
Mean = Callable[[Sequence[float]], Interval]
FEW = 3  # options that are all in a group's name
METRIC = "target.metric"  # in a group's name only if the target's value is not enough
ALWAYS_NAMED = (*(f"{group}._target_" for group in GROUPS), "lr_scaling")  # where they vary
# Prefixes of the columns that fits read: hundreds would be copied whenever a few runs are selected.
FITTED = (
    *(*FREE, *MICRO_BATCHES, *PEAK_LR_OPTIONS, "stop_at_target", "status", "shared", "device_model"),
    *("steps", "examples", "train_seconds", "target."),
    *(f"{kept}.{VALIDATION_LOSS.name}" for kept in ("best", "final")),
    *(quantity.final for quantity in (*THROUGHPUT, *PEAKS)),
)


class Way(StrEnum):
    """How the learning rate of a batch size was set."""

    FIXED = "fixed"
    SCALED = "scaled"
    TUNED = "tuned"
    CHOSEN = "chosen"


@dataclass(frozen=True)
class Tuning:
    """How the learning rates of runs were set; as text `fixed`, `scaled by linear`, `tuned over 5 values`."""

    way: Way
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.way} {self.detail}".rstrip()


@dataclass(frozen=True)
class Group:
    """Runs that are equal in all but batch size, seed and learning rate.

    Its runs have one more column, `other_device`: whether a run was made on another model of device than most.
    """

    name: str  # options that distinguish it from other groups, `lr_scaling=linear precision=bf16`; "" if there are none
    short_name: str  # the same without the options of instruments
    runs: pd.DataFrame  # its rows of `Study.runs`, with the columns that fits read
    tuning: Tuning

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        return tuple(sorted({int(size) for size in self.runs["batch_size"]}))


def groups(study: Study) -> tuple[Group, ...]:
    """The groups of a study, those with the most batch sizes first, then those with the most runs."""
    if study.runs.empty:
        return ()
    requested = study.requested.reindex(study.runs.index)
    requested = requested[that_move(map(str, requested), ALL_OF_A_RUN, without=FREE)].map(to_json)
    varied = [str(name) for name in requested if requested[name].nunique() > 1]
    keys = requested[varied].apply(tuple, axis=1) if varied else pd.Series([()] * len(requested), index=requested.index)
    fitted = study.runs[[str(name) for name in study.runs.columns if str(name).startswith(FITTED)]]
    named = distinguishing(varied, list(dict.fromkeys(keys)))
    found = []
    for key, members in keys.groupby(keys, sort=False):
        runs = fitted.loc[members.index]
        lrs = column(runs, "lr").fillna(column(runs, "lr_scaled")).fillna(0.0)
        runs = runs.assign(lr=lrs.where(lrs < LARGEST, 0.0)).drop_duplicates([*FREE])
        short_name = as_name({k: value for k, value in named[key].items() if not k.startswith("instruments.")})
        runs = runs.assign(other_device=_on_another_device(runs))
        found.append(Group(as_name(named[key]), short_name, runs, _tuning(runs)))
    return tuple(sorted(found, key=lambda group: (-len(group.batch_sizes), -len(group.runs), group.name)))


def as_name(settings: Mapping[str, str]) -> str:
    """`lr_scaling=sqrt warmup=0.1`."""
    return printable(" ".join(f"{option}={value}" for option, value in settings.items()))


def distinguishing(options: Sequence[str], keys: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], dict[str, str]]:
    """The settings by which each of `keys`, values of `options` as JSON text, differs from the others.

    An instrument's options, and the batch size that a rule scales from, are named only if the others are not enough.
    If there are more than a few options, each key is named by those in which it differs from most of the others.
    """
    last = {option: NAMING_LEVELS.get(option.partition(".")[0], 1 if option == METRIC else 0) for option in options}
    for level in (0, 1, max(last.values(), default=0)):
        plain = [i for i, option in enumerate(options) if last[option] <= level]
        if len({tuple(key[i] for i in plain) for key in keys}) == len(keys):
            break
    usual = [Counter(values).most_common(1)[0][0] for values in zip(*keys, strict=True)]
    found = {}
    for key in keys:
        unusual = [i for i in plain if options[i] in ALWAYS_NAMED or key[i] != usual[i]]
        shown = unusual if unusual and len(plain) > FEW else plain
        found[key] = {options[i]: key[i].strip('"') for i in shown}
    return found


def tuning_of(runs: pd.DataFrame) -> Tuning:
    """How the learning rate was set, for runs that are compared one to one."""
    rules = sorted(set(runs["lr_scaling"].dropna().astype(str))) if "lr_scaling" in runs else []
    scaled = [rule for rule in rules if rule != "none"]
    return Tuning(Way.SCALED, f"by {' and '.join(scaled)}") if scaled else Tuning(Way.FIXED)


def _tuning(runs: pd.DataFrame) -> Tuning:
    counts = runs.groupby("batch_size")["lr"].nunique()
    if counts.max() > 1:
        least, most = counts.min(), counts.max()
        return Tuning(Way.TUNED, f"over {most} values" if least == most else f"over {least} to {most} values")
    set_by_rule = tuning_of(runs)
    if set_by_rule.way is Way.FIXED and runs["lr"].nunique() > 1:
        return Tuning(Way.CHOSEN, "for each batch size")
    return set_by_rule


def by(runs: pd.DataFrame, name: str) -> dict[float, pd.DataFrame]:
    """The runs at each batch size or learning rate, in ascending order; a row for each seed, in ascending order."""
    return {float(value): runs[runs[name] == value].sort_values("seed") for value in sorted(runs[name].unique())}


def completed(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that used their whole budget, or reached the target at which they stop."""
    return runs[runs["status"] == RunStatus.COMPLETED]


def trained(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that completed or diverged: the latter were as fast as the others, but did not reach their target."""
    return runs[runs["status"].isin((RunStatus.COMPLETED, RunStatus.DIVERGED))]


def lowest_loss(runs: pd.DataFrame) -> "pd.Series[float]":
    """The lowest validation loss of each run; the last one if the lowest is not recorded; nan if none was measured."""
    return column(runs, VALIDATION_LOSS.best).fillna(column(runs, VALIDATION_LOSS.final))


def alone(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that had the machine to themselves, in a group only those on one model of device.

    Only these can be compared in time and memory.
    """
    return on_one_model(runs[~flag(runs, "shared_machine")])


def on_one_model(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of a group that were made on the same model of device as most of them."""
    return runs[~flag(runs, "other_device")]


def device_models(runs: pd.DataFrame) -> "pd.Series[str]":
    """The name of each run's GPU, or processor for the CPU; empty if it was not recorded."""
    given = runs["device_model"] if "device_model" in runs else [None] * len(runs)
    return pd.Series([model if isinstance(model, str) else "" for model in given], index=runs.index, dtype=object)


def _on_another_device(runs: pd.DataFrame) -> "pd.Series[bool]":
    models = device_models(runs)
    main = main_model((model or None, int(size)) for model, size in zip(models, runs["batch_size"], strict=True))
    return ~models.isin(["", main])


def flag(runs: pd.DataFrame, name: str) -> "pd.Series[bool]":
    """Where a column is true; all false if no run has it."""
    return runs[name].isin([True]) if name in runs else pd.Series(False, index=runs.index)


def _mean(values: Sequence[float]) -> Interval:
    # A new generator with a fixed seed: the same runs always give the same report.
    return mean_interval(values, np.random.default_rng(0))


def over_seeds(values: Iterable[float], mean: Mean = _mean) -> Interval | None:
    """The mean of one value per seed, with its interval; None if no value is finite."""
    finite = [float(value) for value in values if abs(value) < LARGEST]
    return mean(finite) if finite else None


def column(runs: pd.DataFrame, name: str) -> "pd.Series[float]":
    """A column as numbers; all nan if no run has it."""
    if name not in runs:
        return pd.Series(np.nan, index=runs.index)
    values = pd.to_numeric(runs[name], errors="coerce").astype(float)
    if not (np.abs(values.to_numpy()) >= LARGEST).any():  # the usual case; this is called a thousand times
        return values
    return values.where(values.abs() < LARGEST, values * np.inf)
