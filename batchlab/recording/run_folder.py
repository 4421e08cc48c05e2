"""A run's folder: the names of its files, its record and config, and its lock."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from batchlab.config.moved_targets import current
from batchlab.errors import BadRequest
from batchlab.host import locks
from batchlab.recording import disk
from batchlab.recording.files import now_utc, number, read_json, to_json
from batchlab.recording.masking import masked, masked_overrides
from batchlab.records import RunRecord

RECORD = "record.json"
CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
WORKER_LOG = "worker.log"
LOCK = "lock"
# Of a study:
RESULTS = "results.csv"
TENSORBOARD = "tensorboard"
FIGURES = "figures"  # PNGs of the report

_NUMBERS = ("lr_scaled", "epochs", "train_seconds", "wall_seconds")


class RunIsHeld(BadRequest):
    """Another process is writing this run; `by` says which one, as a part of a sentence."""

    def __init__(self, folder: Path, by: str) -> None:
        super().__init__(f"{folder} {by}: wait for it, or stop it")
        self.by = by


def write_record(folder: Path, record: RunRecord) -> None:
    """Writes `record.json` atomically, secrets masked; OSError on failure."""
    values = record.to_dict()
    values["config"] = masked(values["config"])
    values["overrides"] = masked_overrides(values["overrides"])
    disk.write_atomically(folder / RECORD, to_json(values, indent=2) + "\n")


def read_record(folder: Path, unreadable: list[str] | None = None) -> RunRecord | None:
    """The record of a run; None if there is none or it cannot be read.

    The reason why a record cannot be read is added to `unreadable`, if given. Numbers that are not finite are
    converted back from their names, except in the config, where "inf" may be text.
    """
    path = folder / RECORD
    try:
        record = _record(read_json(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        reason = error.strerror or type(error).__name__
    except KeyError as error:
        reason = f"it has no {error}"
    except (ValueError, TypeError) as error:
        reason = str(error)
    else:
        return record
    if unreadable is not None:
        unreadable.append(f"{path} cannot be read: {reason}")
    return None


def set_damaged_aside(folder: Path) -> str | None:
    """Renames an unreadable record and its journal to `*.damaged`; returns a message if it did."""
    damaged: list[str] = []
    if read_record(folder, damaged) is not None or not damaged:
        return None
    for name in (RECORD, METRICS):
        if (folder / name).exists():
            disk.move(folder / name, folder / f"{name}.damaged")
    return f"{damaged[0]}; it and its journal are kept as *.damaged"


def read_records(study_dir: Path, unreadable: list[str] | None = None) -> list[RunRecord]:
    """The records of a study, sorted by batch size; damaged ones are left out and listed in `unreadable`."""
    records = [record for folder in run_folders(study_dir) if (record := read_record(folder, unreadable))]
    return sorted(records, key=lambda record: (record.batch_size, record.run_id))


def write_config(folder: Path, config: Mapping[str, object]) -> None:
    """Writes `config.yaml`, secrets masked: for people to read; no run is built from it."""
    disk.write_atomically(folder / CONFIG, yaml.safe_dump(masked(config), sort_keys=False, allow_unicode=True))


def run_folders(study_dir: Path) -> list[Path]:
    """The folders of a study's runs, by name: those with a `record.json`; empty if there is no such study."""
    return [folder for folder in _folders(study_dir) if (folder / RECORD).is_file()]


def studies(runs_dir: Path) -> list[Path]:
    """The folders in `runs_dir` that contain a run, by name."""
    return [folder for folder in _folders(runs_dir) if run_folders(folder)]


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Locks the run against other writers; RunIsHeld, without waiting, if another process has locked it.

    The system releases the lock when the process ends, however it ends. The lock file is kept: if it were removed,
    two processes could hold two files of the same name.
    """
    disk.make_folder(folder)
    disk.sync_way_to(folder, levels=3)  # the names of the run, its study and runs_dir
    descriptor = disk.open_to_lock(folder / LOCK)
    try:
        try:
            if not locks.lock(descriptor):
                raise RunIsHeld(folder, _holder(os.pread(descriptor, 4096, 0)))
        except OSError as error:
            raise BadRequest(
                f"{folder} cannot be locked ({error.strerror}), so two processes could write the same run: "
                "use runs_dir=... on a file system that supports locks"
            ) from error
        me = {"pid": os.getpid(), "host": socket.gethostname(), "started_at": now_utc()}
        disk.cut(descriptor, 0, folder / LOCK)
        disk.append(descriptor, to_json(me).encode(), folder / LOCK)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # the holder is no longer of interest
                disk.cut(descriptor, 0, folder / LOCK)
    finally:
        locks.release(descriptor)


@contextlib.contextmanager
def hold_study(study_dir: Path) -> Iterator[None]:
    """Waits to be the only writer of the study's files, and removes temporary files of killed writers."""
    with disk.locked(study_dir / f".{TENSORBOARD}.lock"):
        disk.sweep(study_dir)
        yield


def holder(folder: Path) -> str | None:
    """The process that is writing this run, as a part of a sentence; None if there is none."""
    with contextlib.suppress(OSError):
        if locks.is_held(folder / LOCK):
            return _holder((folder / LOCK).read_bytes())
    return None


def _holder(content: bytes) -> str:
    try:
        who = json.loads(content)
        return f"is being run by pid {who['pid']} on host {who['host']} since {who['started_at']}"
    except (ValueError, TypeError, KeyError):  # it has the lock and has not written its name yet
        return "is being run by another process"


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return sorted(child for child in parent.iterdir() if child.is_dir() and not child.name.startswith("."))


def _record(values: Any) -> RunRecord:
    """ValueError, TypeError or KeyError if the values are not a record."""
    if not isinstance(values, dict):
        raise ValueError("it is not a record")
    for name, kind in (("run_id", str), ("study", str), ("batch_size", int), ("seed", int), ("config", dict)):
        if not isinstance(values[name], kind):
            raise ValueError(f"its {name} is {values[name]!r}")
    values = {**values, "environment": _mapping(values.get("environment", {}), "environment")}
    if "instruments" in values["config"]:
        values["config"] = {**values["config"], "instruments": current(values["config"]["instruments"])}
    for name in _NUMBERS:
        if name in values:
            values[name] = number(values[name])
    values["final"] = _numbers(values.get("final", {}), "final")
    values["best"] = {name: _numbers(best, "best") for name, best in _mapping(values.get("best", {}), "best").items()}
    if values.get("target") is not None:
        values["target"] = {name: number(entry) for name, entry in _mapping(values["target"], "target").items()}
    return RunRecord.from_dict(values)


def _mapping(value: Any, name: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f"its {name} is {value!r}")
    return value


def _numbers(value: Any, name: str) -> dict[str, float]:
    read = {key: number(entry) for key, entry in _mapping(value, name).items()}
    for key, entry in read.items():
        if isinstance(entry, bool) or not isinstance(entry, int | float):
            raise ValueError(f"its {name} {key} is {entry!r}")
    return read
