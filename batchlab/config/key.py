"""Compares configurations: whether two have the same value of every option that changes a given aspect of a run."""

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from batchlab.config.goals import BUDGET_UNITS, plain_target
from batchlab.config.option_row import IDENTITY, RESULTS, Moves, Option, micro_batches
from batchlab.config.options import MADE_WITH, MEASURING, MICRO_BATCHES, OF_THE_MACHINE, RUN, option_of, that_move
from batchlab.config.run import RunConfig

HIDDEN = "hidden"  # in a record: which of its values came from environment variables
Config = RunConfig | Mapping[str, object]  # or the `config` of a record, which may lack options that were added later


def key(config: Config, moves: Moves, *, without: Collection[str] = ()) -> str:
    """Equal for two configurations that agree in every option that changes any of `moves`, except those in `without`.

    Without `batch_size` accumulation is compared as it was requested: `accumulate=4` differs from
    `micro_batch_size=16`, though both are the same at batch size 64.
    """
    return json.dumps(compared(config, moves, without=without), sort_keys=True, default=str)


def compared(config: Config, moves: Moves, *, without: Collection[str] = ()) -> dict[str, object]:
    """What `key` is made of: canonical plain values by name. An option that is not in the table may change anything."""
    values = config if isinstance(config, Mapping) else _values(config)
    named = {name: value for name, value in values.items() if option_of(name) is None and name != HIDDEN}
    for name, row in RUN.items():
        if row.moves & moves and name not in (*without, *MICRO_BATCHES):
            value = seen(row, _value(values, row), moves)
            if not (row.was_added and _canonical(value) == _canonical(row.before)):
                named[name] = value
    if RUN["batch_size"].moves & moves:
        named |= _micro_batches(values, without)
    canonical: dict[str, object] = _canonical(named)
    return canonical


def requested(config: Mapping[str, object], moves: Moves, *, without: Collection[str] = ()) -> dict[str, object]:
    """The options of a record that `compared` compares, with the values that they were given, for display.

    An option that was added later has the value that held before.
    """
    found = {name: config[name] for name in that_move(config, moves, without=(*without, HIDDEN))}
    for name, value in found.items():
        found[name] = value if (row := option_of(name)) is None else row.seen_as(value)
    added = {name: row.before for name, row in RUN.items() if row.was_added and row.before is not None}
    return found | {name: added[name] for name in that_move(added, moves, without=(*without, *found))}


def made_with(config: Config) -> str:
    """Equal for two configurations whose studies may be compared: names of their code and kind of device."""
    values = config if isinstance(config, Mapping) else _values(config)
    kinds = [RUN[name].seen_as(values.get(name)) for name in MADE_WITH]
    return repr([kind.get("_target_") if isinstance(kind, Mapping) else kind for kind in kinds])


def results_of(keys: Iterable[str], *, without: Collection[str] = ()) -> list[str]:
    """The dotted keys whose value changes the results, by which the points of two studies are matched.

    Not those that say what is measured in addition to training, or on which machine.
    """
    return that_move(keys, RESULTS, without=(*without, *OF_THE_MACHINE, *MEASURING))


def seen(row: Option, value: Any, moves: Moves) -> Any:
    """The part of an option's value that changes any of `moves`."""
    return bool(value) if row.only_whether and not moves & IDENTITY else row.as_before(row.seen_as(value))


def _values(config: RunConfig) -> dict[str, object]:
    """As in a record, except for tuples."""
    values = {name: getattr(config, name) for name in RUN if name != "budget"}
    return values | {"target": plain_target(config.target), config.budget.unit: config.budget.amount}


def _value(values: Mapping[str, object], row: Option) -> Any:
    if row.name == "budget":
        return next(([unit, values[unit]] for unit in BUDGET_UNITS if values.get(unit) is not None), None)
    return values.get(row.name, row.before if row.was_added else None)


def _micro_batches(values: Mapping[str, object], without: Collection[str]) -> dict[str, object]:
    given: dict[str, Any] = {name: values.get(name) for name in MICRO_BATCHES}
    if isinstance(given["batch_size"], int) and not {*without} & {*MICRO_BATCHES}:
        return {"batch_size": given["batch_size"], "micro_batches": micro_batches(**given)}
    if given["accumulate"] is None and given["micro_batch_size"] is None:
        given["accumulate"] = 1
    return {name: value for name, value in given.items() if name not in without}


def _canonical(value: Any) -> Any:
    """Maps 20.0 to 20 and tuples to lists."""
    if isinstance(value, Mapping):
        return {str(name): _canonical(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(entry) for entry in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
