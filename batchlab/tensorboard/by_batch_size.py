"""Curves over the batch size: one for each configuration, ignoring batch size and seed."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from batchlab.config.key import key, requested
from batchlab.config.option_row import ALL_OF_A_RUN, Role
from batchlab.config.options import FIRST, GROUPS, MICRO_BATCHES, OPTIONS, of_role
from batchlab.recording.device_models import main_model
from batchlab.recording.files import to_json
from batchlab.recording.flat_options import flat, flat_options
from batchlab.records import RunRecord, RunStatus
from batchlab.records.declared import Quantities, declared_by
from batchlab.tensorboard.event_file import tag_of

Curves = dict[str, dict[int, float]]  # tag -> batch size -> mean over seeds

ALONG = (*of_role(Role.AXIS), *of_role(Role.REPEATED))  # what varies along a curve
NAMED = tuple(name for name in FIRST if name not in (*ALONG, *MICRO_BATCHES))  # in the name of every curve
BY_BATCH_SIZE = "by_batch_size/"  # prefix of every tag
SHARED, ELSEWHERE = "_on_shared_machine", "_on_another_device"


def curves(records: Iterable[RunRecord]) -> dict[str, Curves]:
    """For each configuration, by a readable name, the mean over seeds of the results of its completed runs.

    Times and memory of runs that shared the machine are not comparable and get separate curves,
    `..._on_shared_machine`; so do those on another device model than most runs of their configuration,
    `..._on_another_device`. The cost of reaching the target is left out if one seed did not reach it.
    """
    records = list(records)
    groups: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        if record.status is RunStatus.COMPLETED:
            groups[key(record.config, ALL_OF_A_RUN, without=ALONG)].append(record)
    names = _names([_configuration(members[0]) for members in groups.values()])
    quantities = declared_by(records)
    return {name: _means(members, quantities) for name, members in zip(names, groups.values(), strict=True)}


def _configuration(record: RunRecord) -> dict[str, object]:
    """The options that are fixed along a curve, as requested: with `micro_batch_size=8` the accumulation varies."""
    values = flat(requested(record.config, ALL_OF_A_RUN, without=ALONG))
    named = flat_options(record)
    short = {group: named[group] for group in GROUPS if group in named}
    return short | dict(sorted(values.items()))


def _names(configurations: Sequence[Mapping[str, object]]) -> list[str]:
    """`lr0.05-linear-fp32`, plus the options that are needed to distinguish the configurations."""
    parts: list[list[str]] = [[] for _ in configurations]
    options = dict.fromkeys((*NAMED, *(option for one in configurations for option in one)))
    for option in options:
        same = defaultdict(list)
        for index, words in enumerate(parts):
            same[tuple(words)].append(index)
        for indices in same.values():
            values = {index: configurations[index].get(option) for index in indices}
            if option in NAMED or len(set(map(to_json, values.values()))) > 1:
                for index, value in values.items():
                    parts[index].append(_word(option, value))
    names = [re.sub(r"[^\w.,+-]", "_", "-".join(filter(None, words)), flags=re.ASCII)[:100] for words in parts]
    return [
        f"{name}-{names[:index].count(name) + 1}" if name in names[:index] else name for index, name in enumerate(names)
    ]


def _word(option: str, value: Any) -> str:
    if value is None:
        return ""
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    value_is_enough = option in GROUPS or (option in NAMED and OPTIONS[option].choices)
    return shown if value_is_enough else option + shown


def _means(records: Iterable[RunRecord], quantities: Quantities) -> Curves:
    by_size: dict[int, list[dict[str, float]]] = defaultdict(list)
    members = list(records)
    main = main_model((record.device_model, record.batch_size) for record in members)
    for record in members:
        suffix = SHARED if record.shared_machine else "" if record.device_model in (None, main) else ELSEWHERE
        by_size[record.batch_size].append(_values(record, quantities, suffix))
    found: Curves = defaultdict(dict)
    for batch_size, seeds in sorted(by_size.items()):
        for tag in {tag for values in seeds for tag in values}:
            values = [seed[tag] for seed in seeds if tag in seed]
            # The mean over only the seeds that reached it would favour batch sizes that often do not.
            if len(values) == len(seeds) or not tag.startswith(f"{BY_BATCH_SIZE}target_"):
                found[tag][batch_size] = math.fsum(values) / len(values)
    return dict(found)


def _values(record: RunRecord, quantities: Quantities, suffix: str) -> dict[str, float]:
    """A run's numbers by tag; the tags of clocked quantities end with `suffix`."""
    marks = {name: suffix if quantities[name].clocked else "" for name in (*record.final, *record.best)}
    values: dict[str, float] = {name + marks[name]: value for name, value in record.final.items()}
    values |= {f"best_{name}{marks[name]}": best["value"] for name, best in record.best.items()}
    values[f"train_seconds{suffix}"] = record.train_seconds
    target = record.target or {}
    if target.get("reached"):
        values |= {"target_steps": target["step"], "target_examples": target["examples"]}
        values[f"target_seconds{suffix}"] = target["train_seconds"]
    return {tag_of(BY_BATCH_SIZE + over_batch_sizes(name)): float(value) for name, value in values.items()}


def over_batch_sizes(name: str) -> str:
    """The name of a measurement's curve over the batch size; without the group `speed/`, which the unit implies."""
    return name.removeprefix("speed/").replace("/", "_")
