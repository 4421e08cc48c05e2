"""The one door for small durable writes, and for numbers that JSON has no word for."""

import contextlib
import fcntl
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
# Not the caller's fault if a link of that name waits in the folder: it is never followed.
_OWN_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def now_utc() -> str:
    """The time now as `2026-01-02T03:04:05Z`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def create(path: Path) -> int:
    """A file descriptor for writing to a file that did not exist before; FileExistsError otherwise."""
    return os.open(path, _OWN_FILE, 0o666)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes aside, on to the disk, then moves: whoever reads `path` sees the old content or the new, never a part.

    Raises OSError, with the old content untouched and nothing left aside.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    data = content.encode() if isinstance(content, str) else content
    try:
        with os.fdopen(create(aside), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Puts the names in `folder` on the disk: a moved file may otherwise be lost with the power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: Path) -> Any:
    """The content of a JSON file; OSError where it cannot be read, ValueError where it is no JSON in UTF-8."""
    try:
        return json.loads(path.read_bytes().decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON that every parser accepts: what is not finite is written as `"nan"`, `"inf"` or `"-inf"`."""
    return json.dumps(plain(value), indent=indent, allow_nan=False, ensure_ascii=False)


def plain(value: Any) -> Any:
    """`value` in the types of JSON: mappings to dicts, tuples to lists, anything unknown to its text."""
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return number_or_word(value)
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    # A lone surrogate (a file name that is no text) cannot be encoded, and would take the whole record with it.
    return str(value).encode(errors="replace").decode()


def number_or_word(value: float) -> float | str:
    """`value`, or its name where it is not finite."""
    if math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"


def number(value: Any) -> Any:
    """The inverse of `number_or_word`; what is neither a number nor such a name stays what it is."""
    return NOT_FINITE.get(value, value) if isinstance(value, str) else value


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits until nobody else is inside for the same `path`, a file that is made and stays; OSError without locks."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
