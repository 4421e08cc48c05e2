"""batchlab for callers in Python: converts their values to overrides, runs the points, and returns the records."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from batchlab.config import SweepConfig
from batchlab.config.options import WITH_TARGETS
from batchlab.config.values import as_override, is_finite
from batchlab.errors import BadRequest, EmptyGrid
from batchlab.hydra_app.arguments import FLAGS, RETRY, read_arguments
from batchlab.hydra_app.front import grid_composer
from batchlab.printable import printable
from batchlab.recording.run_folder import read_record
from batchlab.records import RunRecord
from batchlab.sweep.planning import Action, plan_point
from batchlab.sweep.points import Point, without_duplicates
from batchlab.sweep.processes.server import keep_warm
from batchlab.sweep.run_sweep import run_sweep_and_points

Requested = str | Mapping[str, object] | Sequence[str]

WITH_KEYS = (*WITH_TARGETS, "target")  # a mapping given for these sets several options
KEY = re.compile(r"[+~]{0,2}[A-Za-z_][\w./@-]*", re.ASCII)


def point(requested: Requested, config_dir: str | None) -> RunRecord:
    """Trains the one point that `requested` describes; returns its record."""
    points, sweep = _grid(overrides_of(requested), config_dir)
    if len(points) != 1:
        raise BadRequest(f"this is a grid of {len(points)} points, and train runs one: use batchlab.run_study(...)")
    if sweep.dry_run:
        raise BadRequest("dry_run works with run_study and the command line only: train returns the record of a run")
    (record,) = _records(points, sweep)
    return record


def study(requested: Requested, over: Mapping[str, Iterable[Any]], config_dir: str | None) -> list[RunRecord]:
    """Trains the points of a grid; returns the records of those that have one, in the grid's order."""
    return _records(*_grid([*overrides_of(requested), *_axes(over)], config_dir))


def overrides_of(requested: Requested) -> list[str]:
    """The request as overrides: from the text of a command line, a list of overrides, or a mapping of plain values."""
    if isinstance(requested, str):
        try:
            return shlex.split(requested)
        except ValueError as error:
            raise BadRequest(f"{printable(requested)[:100]} cannot be read: {error}, as in a shell") from None
    if isinstance(requested, Mapping):
        return [f"{key}={_written(key, value)}" for key, value in _flat(requested)]
    listed = list(requested) if isinstance(requested, Iterable) else None
    if listed is None or not all(isinstance(override, str) for override in listed):
        raise BadRequest(
            f"{printable(repr(requested))[:100]} is not a config: give a dict of options, as {{'batch_size': 64}}, "
            "or what you would type, as 'batch_size=64 model=cnn'"
        )
    return listed


def _grid(typed: Sequence[str], config_dir: str | None) -> tuple[list[Point], SweepConfig]:
    flags = (line for line in typed if line.startswith("-") and line.partition("=")[0] not in (RETRY, *FLAGS, "--"))
    elsewhere = (line for line in typed if line.lstrip("+~").startswith(("hydra.", "hydra/", "hydra=")))
    for line in (*flags, *elsewhere):
        raise BadRequest(f"{line} is for the command line: leave it out; for configs of your own use config_dir='...'")
    given = read_arguments(typed)
    with grid_composer(given.overrides, config_dir) as composer:
        return composer.grid(given.overrides)


def _records(points: Sequence[Point], sweep: SweepConfig) -> list[RunRecord]:
    if any(plan_point(p, sweep).action is not Action.SKIP for p in points):
        keep_warm()
    code, points = run_sweep_and_points(points, sweep)
    if code == 130:
        raise KeyboardInterrupt
    if code > 128:  # another signal, which is meant to end this program
        raise SystemExit(code)
    found = [read_record(p.folder) for p in without_duplicates(points)]
    return [record for record in found if record is not None]


def _axes(over: Mapping[str, Iterable[Any]]) -> Iterator[str]:
    if not isinstance(over, Mapping):
        raise BadRequest(f"over={printable(repr(over))[:100]} is invalid: give a dict, {{'batch_size': [8, 32, 256]}}")
    for key, values in over.items():
        if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
            raise BadRequest(
                f"over={{{key!r}: {printable(repr(values))[:100]}}} is invalid: give the values of {key} in a list"
            )
        listed = list(values)
        if not listed:
            raise EmptyGrid(f"the grid is empty: over={{{key!r}: ...}} gives no values")
        name = f"{key}._target_" if key in WITH_TARGETS and callable(listed[0]) else key
        yield f"{_key(name)}={','.join(_written(key, value) for value in listed)}"


def _flat(requested: Mapping[str, object]) -> Iterator[tuple[str, Any]]:
    """The options, with mappings flattened; the choice of a group comes before its keys."""
    for key, value in requested.items():
        name = _key(key)
        if name in WITH_TARGETS and callable(value):
            yield f"{name}._target_", value
        elif name in WITH_KEYS and isinstance(value, Mapping):
            yield from ((_key(f"{name}.{inner}"), entry) for inner, entry in value.items())
        elif name == "instruments" and isinstance(value, Mapping):
            yield from ((_key(f"++instruments.{inner}"), entry) for inner, entry in value.items())
        else:
            yield name, value


def _key(key: Any) -> str:
    if not isinstance(key, str) or not KEY.fullmatch(key):
        raise BadRequest(f"{printable(repr(key))[:100]} is not the name of an option: `batchlab config` lists them")
    return key


def _written(key: str, value: Any) -> str:
    """`value` as Hydra's grammar reads it back."""
    return as_override(_plain(key, value))


def _plain(key: str, value: Any) -> Any:
    if isinstance(value, str):
        if value.encode(errors="replace") != value.encode(errors="surrogatepass"):
            raise BadRequest(f"{key}={ascii(value)[:100]} is invalid: it has a surrogate, which is no character")
        return value
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and is_finite(value)):
        return value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {_inner_key(key, name): _plain(key, entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(key, entry) for entry in value]
    if callable(value):
        return _target(key, value)
    if getattr(value, "shape", None) == ():  # a scalar of NumPy or PyTorch
        return _plain(key, value.item())
    raise BadRequest(
        f"{key}={_quoted(value)} is invalid: a value of type {type(value).__name__} cannot be written "
        "into a config; give numbers, texts, lists of them, or for data, model, optimizer and schedule a class or a "
        "function"
    )


def _quoted(value: Any) -> str:
    try:
        return printable(repr(value))[:100]
    except ValueError:  # Python writes no integer of more than 4300 digits
        return "..."


def _inner_key(key: str, name: Any) -> str:
    """A key of a mapping; Hydra has no quotes for keys, so one that it would read as something else is refused."""
    if not isinstance(name, str) or as_override(name) != name or not KEY.fullmatch(name) or name.startswith(("+", "~")):
        allowed = "letters, digits, '_', '-', '.' and '/', and begin with a letter"
        raise BadRequest(f"{key} has the key {printable(repr(name))[:100]}, which is invalid: use {allowed}")
    return name


def _target(key: str, value: Any) -> str:
    """The dotted name of a class or function, by which the process of a point imports it."""
    home, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not home or not name:
        raise BadRequest(f"{key}={printable(repr(value))[:100]} has no name to import: give a class or a function")
    if home == "__main__":
        raise BadRequest(
            f"{key}={name} is defined in this script or notebook, which the process of a point cannot import: "
            f"put {name} into a file of its own, my_net.py, and write `from my_net import {name}` here"
        )
    if "<" in name:
        raise BadRequest(f"{key}={name} is defined inside a function: move it to the top of its file")
    return f"{home}.{name}"
