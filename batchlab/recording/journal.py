"""`metrics.jsonl`: one line per measurement, append-only; a run that is killed loses at most its last line."""

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from batchlab.errors import BatchlabError
from batchlab.recording import disk
from batchlab.recording.files import number, number_or_name
from batchlab.records import Measurement


class NotItsJournal(BatchlabError):  # noqa: N818 - a finding, not a failure
    """The journal does not match a checkpoint's position in it."""


class Journal:
    """Writes the journal. One writer per run folder: hold the folder (`run_folder.hold`) while it is open.

    Each line is passed to the system when it is appended, so that a killed process loses none; `flush` writes
    them to the disk, in case of a power loss. OSError if the file cannot be opened.
    """

    def __init__(self, path: Path, *, restart: bool = False) -> None:
        """Continues after the last whole line and cuts off a torn one; `restart` begins an empty journal."""
        self._path = path
        self._descriptor = disk.open_to_append(path, restart=restart)
        self._seq = 0
        self.offset = 0  # in bytes, where the next line begins; stored in checkpoints
        self._hash = hashlib.sha256()
        self._cut(_whole(path.read_bytes()))

    def append(self, measurement: Measurement) -> None:
        """Appends a line; StorageError if the disk is full, with the earlier lines intact."""
        line = (json.dumps({"seq": self._seq, **_fields(measurement)}, allow_nan=False) + "\n").encode()
        try:
            disk.append(self._descriptor, line, self._path)
        except OSError:
            with contextlib.suppress(OSError):
                disk.cut(self._descriptor, self.offset, self._path)
            raise
        self._seq += 1
        self.offset += len(line)
        self._hash.update(line)

    @property
    def digest(self) -> str:
        """The SHA-256 of all lines so far; stored in checkpoints."""
        return self._hash.hexdigest()

    def truncate(self, offset: int, digest: str | None = None) -> None:
        """Cuts the journal back to `offset`: what came later will be measured again.

        NotItsJournal if the journal is shorter, no line begins there, or the lines before it do not have the given
        `digest`: then it belongs to another checkpoint, or was damaged since.
        """
        content = self._path.read_bytes()
        if offset > len(content) or _whole(content[:offset]) != content[:offset]:
            raise NotItsJournal(
                f"{self._path.name} ({len(content)} bytes) has no line that begins at byte {offset}: "
                "it is not the journal of that checkpoint"
            )
        if digest is not None and hashlib.sha256(content[:offset]).hexdigest() != digest:
            raise NotItsJournal(f"the first {offset} bytes of {self._path.name} have changed since the checkpoint")
        self._cut(content[:offset])

    def flush(self) -> None:
        """Flushes all lines to the disk."""
        disk.sync(self._descriptor, self._path)

    def close(self) -> None:
        """Flushes and closes; calling it twice is harmless."""
        if self._descriptor >= 0:
            self.flush()
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _cut(self, kept: bytes) -> None:
        disk.cut(self._descriptor, len(kept), self._path)
        self.offset = len(kept)
        self._hash = hashlib.sha256(kept)
        self._seq = next((entry.seq + 1 for line in reversed(kept.splitlines()) if (entry := _entry(line))), 0)


def read_journal(path: Path, broken: list[str] | None = None) -> list[Measurement]:
    """The measurements of a run in order, also while it is running; empty if there is no journal.

    A torn last line is ignored. Other broken lines are left out and listed in `broken`, if given.
    """
    try:
        content = _whole(path.read_bytes())
    except FileNotFoundError:
        return []
    measurements = []
    # Not splitlines: it also splits at characters that may be part of a name.
    for position, line in enumerate(content.split(b"\n")[:-1], 1):
        entry = _entry(line)
        if entry is not None:
            measurements.append(entry.measurement)
        elif broken is not None:
            broken.append(f"{path}, line {position} is not a measurement and was left out")
    return measurements


def _whole(content: bytes) -> bytes:
    """Up to and including the last newline."""
    return content[: content.rfind(b"\n") + 1]


def _fields(measurement: Measurement) -> dict[str, str | float | None]:
    low, high = measurement.low, measurement.high
    return {
        "name": measurement.name,
        "value": number_or_name(float(measurement.value)),
        "step": int(measurement.step),
        "examples": int(measurement.examples),
        "train_seconds": number_or_name(float(measurement.train_seconds)),
        "low": None if low is None else number_or_name(float(low)),
        "high": None if high is None else number_or_name(float(high)),
        "n": None if measurement.n is None else int(measurement.n),
    }


@dataclass(frozen=True)
class _Entry:
    seq: int
    measurement: Measurement


def _entry(line: bytes) -> _Entry | None:
    """The content of a line; None if it is broken."""
    try:
        values = json.loads(line.decode())
        return _Entry(
            int(values["seq"]),
            Measurement(
                name=str(values["name"]),
                value=float(number(values["value"])),
                step=int(values["step"]),
                examples=int(values["examples"]),
                train_seconds=float(number(values["train_seconds"])),
                low=None if values.get("low") is None else float(number(values["low"])),
                high=None if values.get("high") is None else float(number(values["high"])),
                n=None if values.get("n") is None else int(values["n"]),
            ),
        )
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
