"""The command that would test a claim: the study's own settings, with what the claim needs."""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from batchlab.config import BUDGET_UNITS, is_folder_name
from batchlab.config.option_row import Role
from batchlab.config.options import GROUPS, MICRO_BATCHES, WITH_TARGETS, option_of
from batchlab.config.values import as_override
from batchlab.config_folder import config_folder
from batchlab.printable import command_line
from batchlab.recording.files import to_json
from batchlab.recording.flat_options import flat
from batchlab.recording.masking import MASK
from batchlab.records.quantities import VALIDATION_LOSS
from batchlab.report.tables.study import Study
from batchlab.science.scaling.lr_scaling import NOISE_RULES

SIZES = (8, 32, 128, 512)
SEEDS = 5  # with three a t interval is so wide that only effects of three standard deviations show
PLAIN_TASK = {"data": "digits", "model": "mlp"}  # tests a claim if the study's own task lacks an option for it


def command(study: Study, settings: Mapping[str, str], overrides: Sequence[str]) -> str:
    """`batchlab sweep ...` into the same study; the claim's `overrides` take precedence.

    `settings` are those of the study, `usual(study)`.
    """
    wanted = dict(line.split("=", 1) for line in overrides)
    # A user's own `data._target_` needs no group: batchlab then takes `own`.
    chosen = {group: name for group, name in PLAIN_TASK.items() if f"{group}._target_" not in settings} | dict(settings)
    chosen |= {"batch_size": _sizes(study), "seed": ",".join(map(str, range(_seeds(study))))}
    if is_folder_name(study.name):
        chosen |= {"study": study.name}
        if study.folder.parent != Path("runs"):
            chosen |= {"runs_dir": written(str(study.folder.parent))}
    if any(_lacks(chosen, key) for key in wanted if key.partition(".")[0] not in wanted):
        wanted |= PLAIN_TASK  # which has all of them
    for group in GROUPS:
        if group in wanted:  # another data set or model does not have the keys of the study's
            chosen = {key: value for key, value in chosen.items() if key.split(".")[0] != group}
    chosen |= wanted
    if chosen.get("lr_scaling", "none") not in NOISE_RULES:
        chosen.pop("noise_scale", None)
    # Masked values are lost, and control characters must not be pasted into a terminal.
    chosen = {key: value for key, value in chosen.items() if MASK not in value and f"{key}{value}".isprintable()}
    # Groups first, in whatever order they were typed: they tell the reader what the rest belongs to.
    order = sorted(chosen, key=lambda key: (key.split(".")[0] not in GROUPS, key in ("study", "runs_dir")))
    return command_line(["batchlab", "sweep", *(f"{key}={chosen[key]}" for key in order)])


def _lacks(chosen: Mapping[str, str], key: str) -> bool:
    """Whether `key` is an option that its shipped data set or model does not have."""
    group, _, name = key.partition(".")
    return group in GROUPS and bool(name) and group in chosen and name not in _defaults(f"{group}/{chosen[group]}.yaml")


def unknown_keys(study: Study, settings: Mapping[str, str], overrides: Sequence[str]) -> list[str]:
    """Options of the user's own data set or model that no run of the study set: they may not be accepted."""
    keys = [line.partition("=")[0] for line in overrides]
    groups = {key: key.partition(".")[0] for key in keys if "." in key}
    own = [key for key, group in groups.items() if group not in keys and f"{group}._target_" in settings]
    return [key for key in own if key not in study.requested]


def usual(study: Study) -> dict[str, str]:
    """The options of most runs of the study that are not the defaults."""
    if study.requested.empty:
        return {}
    requested = {str(name): _most(study.requested[name].tolist()) for name in study.requested}
    defaults = flat(_defaults("config.yaml"))
    kept: dict[str, str] = {}
    for group in WITH_TARGETS:
        target = requested.get(f"{group}._target_")
        if isinstance(target, str):
            kept |= _group(group, target, requested)
    for name, value in requested.items():
        if "." in name or not _is_kept(name) or value is None or value == defaults.get(name):
            continue
        if name in BUDGET_UNITS or name in defaults:
            kept[name] = written(value)
    if requested.get("target.value") is not None:
        kept["target.value"] = written(requested["target.value"])
        if requested.get("target.metric") not in (None, VALIDATION_LOSS.name):
            kept["target.metric"] = written(requested["target.metric"])
    return kept


def _is_kept(name: str) -> bool:
    """Whether the command repeats the study's value: not of options that claims set, nor of options of a machine."""
    row = option_of(name)
    claims_own = name in (*MICRO_BATCHES, "stop_at_target") or (row is not None and row.role is Role.REPEATED)
    return not claims_own and (row is None or not row.of_the_machine)


def _group(group: str, target: str, requested: Mapping[str, object]) -> dict[str, str]:
    keys = {name: value for name, value in requested.items() if name.startswith(f"{group}.") and name.count(".") == 1}
    keys.pop(f"{group}._target_", None)
    for file in sorted((config_folder() / group).glob("*.yaml")):
        shipped = _defaults(f"{group}/{file.name}")
        if shipped.get("_target_") == target:
            known = {name: value for name, value in keys.items() if name.split(".")[1] in shipped}
            changed = {n: written(v) for n, v in known.items() if v != shipped[n.split(".")[1]]}
            return ({group: file.stem} if (group, file.stem) != ("optimizer", "sgd") else {}) | changed
    return {f"{group}._target_": written(target)} | {n: written(v) for n, v in keys.items() if v is not None}


def written(value: Any) -> str:
    """A value of the table of runs as in an override: a column holds integers as floats, and lists as JSON text."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return value if isinstance(value, str) and _is_list(value) else as_override(value)


def _is_list(text: str) -> bool:
    """Whether it is a list of numbers, stored as JSON text."""
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return isinstance(found, list) and all(isinstance(entry, int | float) for entry in found)


def _most(values: list[Any]) -> Any:
    """The most frequent value, the first one of a tie."""
    texts = [to_json(value) for value in values]
    return values[texts.index(max(dict.fromkeys(texts), key=texts.count))]


def _sizes(study: Study) -> str:
    runs = study.runs
    sizes = sorted({int(size) for size in runs["batch_size"]}) if len(runs) else []
    if len(sizes) >= 3:
        return ",".join(map(str, sizes))
    n_train = runs["n_train"].max() if len(runs) and runs["n_train"].notna().any() else SIZES[-1]
    return ",".join(str(size) for size in sorted({*sizes, *SIZES}) if size <= n_train)


def _seeds(study: Study) -> int:
    return max(SEEDS, study.runs["seed"].nunique() if len(study.runs) else 0)


@functools.cache
def _defaults(name: str) -> dict[str, object]:
    """A shipped config file as plain values."""
    values = yaml.safe_load((config_folder() / name).read_text(encoding="utf-8"))
    return values if isinstance(values, dict) else {}
