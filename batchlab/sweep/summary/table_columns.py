"""The options that distinguish the points of a table, and the order of the points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchlab.config import target_name
from batchlab.config.key import requested
from batchlab.config.option_row import ALL_OF_A_RUN, Role
from batchlab.config.options import of_role
from batchlab.config.values import flattened
from batchlab.printable import printable
from batchlab.records import RunRecord

ELSEWHERE = (*of_role(Role.AXIS, Role.TUNED), "accumulate")  # they have their own columns
ABSENT = "-"


@dataclass(frozen=True)
class Setting:
    """An option that varies over the table, and its value for each record, in the table's order."""

    name: str
    cells: tuple[str, ...]


def arranged(records: Sequence[RunRecord]) -> tuple[list[RunRecord], list[Setting]]:
    """`records` sorted by batch size and then by the options that vary; and those options."""
    varying = _varying(records)
    order = sorted(
        range(len(records)),
        key=lambda i: (
            records[i].batch_size,
            [_sortable(values[i]) for values in varying.values()],
            records[i].seed,
            records[i].run_id,
        ),
    )
    settings = [Setting(name, tuple(_text(values[i]) for i in order)) for name, values in varying.items()]
    return [records[i] for i in order], settings


def _by_name(config: Mapping[str, object]) -> dict[str, Any]:
    """A config's values by dotted name; the name of a group has its `_target_` as value."""
    return {name.removesuffix("._target_"): value for name, value in flattened(config)}


def _varying(records: Sequence[RunRecord]) -> dict[str, list[Any]]:
    configs = [_by_name(requested(record.config, ALL_OF_A_RUN)) for record in records]
    found: dict[str, list[Any]] = {}
    made = [record.accumulate for record in records]
    if len({count for count in made if count is not None}) > 1:
        found["accumulate"] = made
    lrs = [config.get("lr") for config in configs]
    if _differ(lrs) and any(r.lr_scaled != lr for r, lr in zip(records, lrs, strict=True)):
        found["lr"] = lrs  # the column of peak learning rates does not show them
    for name in dict.fromkeys(name for config in configs for name in config):
        if name in ELSEWHERE or not _varies(name, configs):
            continue
        values = [config.get(name, ABSENT) for config in configs]
        found[name] = _names(values) if _is_group(name, records) else values
    # Instruments may have a dozen options; their columns are left out if other options distinguish the points.
    others = {name: values for name, values in found.items() if not name.startswith("instruments")}
    rows = [
        (r.batch_size, r.seed, r.lr_scaled, *map(repr, row)) for r, *row in zip(records, *others.values(), strict=True)
    ]
    return others if len(set(rows)) == len(rows) else found


def _varies(name: str, configs: Sequence[Mapping[str, object]]) -> bool:
    """Whether `name` varies; a group's key (model.depth) only among points with the same group (model)."""
    group = name.rpartition(".")[0]
    kinds: dict[str, list[Any]] = {}
    for config in configs:
        if not group or group not in config or name in config:
            kinds.setdefault(str(config.get(group)), []).append(config.get(name, ABSENT))
    return any(_differ(values) for values in kinds.values())


def _is_group(name: str, records: Sequence[RunRecord]) -> bool:
    return any(isinstance(record.config.get(name), Mapping) for record in records)


def _names(targets: Sequence[Any]) -> list[Any]:
    """`mlp` for a built-in's `_target_`; the whole name if two short names are equal."""
    short = [target_name({"_target_": target}) for target in targets]
    return short if len(set(short)) == len(set(targets)) else list(targets)


def _differ(values: Sequence[Any]) -> bool:
    return len({repr(value) for value in values}) > 1


def _sortable(value: Any) -> tuple[int, float, str]:
    if isinstance(value, int | float):
        return (0, float(value), "")
    return (1, 0.0, "" if value is None else str(value))


def _text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return format(value, "g") if isinstance(value, float) else printable(value)
