"""All durable writes of a run or a study go through this module.

Each function does one thing to the disk and raises StorageError, with the path and the system's error. One test
makes every call of this module fail in turn, and another asserts that no other module writes.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from batchlab.errors import StorageError

# A link that somebody placed in the folder is never followed.
_OWN_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_APPENDED = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCKED = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_ASIDE = ".tmp"  # suffix of a temporary file


def make_folder(path: Path) -> None:
    """Creates `path` and its parents, if they do not exist."""
    with _at(path, "made"):
        os.makedirs(path, exist_ok=True)  # noqa: PTH103 - all of this module's calls are os's, for the test's sake


def make_folder_inside(path: Path) -> None:
    """Creates `path` but not its parent: if the parent is gone, it must not come back empty; then StorageError."""
    with _at(path, "made"), contextlib.suppress(FileExistsError):
        os.mkdir(path)  # noqa: PTH102


def create(path: Path) -> int:
    """A descriptor for writing to a new file; FileExistsError if it exists."""
    try:
        return os.open(path, _OWN_FILE, 0o666)
    except FileExistsError:
        raise
    except OSError as error:
        raise StorageError.of(error, path) from error


def open_to_append(path: Path, *, restart: bool = False) -> int:
    """A descriptor that writes at the end; `restart` empties the file."""
    with _at(path):
        return os.open(path, _APPENDED | (os.O_TRUNC if restart else 0), 0o666)


def open_to_lock(path: Path) -> int:
    """A descriptor of a lock file, which is created if needed and never removed."""
    with _at(path):
        return os.open(path, _LOCKED, 0o666)


def append(descriptor: int, data: bytes, path: Path) -> None:
    """Writes all of `data`; StorageError, possibly after a part of it."""
    with _at(path):
        written = 0
        while written < len(data):
            written += os.write(descriptor, data[written:])


def cut(descriptor: int, length: int, path: Path) -> None:
    """Truncates the file to `length` bytes."""
    with _at(path):
        os.ftruncate(descriptor, length)


def sync(descriptor: int, path: Path) -> None:
    """Flushes what was written from the system's cache to the disk."""
    with _at(path):
        os.fsync(descriptor)


def move(source: Path, target: Path) -> None:
    """Renames `source` to `target`, replacing an existing file."""
    with _at(target):
        os.replace(source, target)  # noqa: PTH105


def remove(path: Path) -> None:
    """Removes the file, if it exists."""
    with _at(path, "removed"), contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108


def remove_folder(folder: Path) -> None:
    """Removes the empty folder; StorageError if it is not empty."""
    with _at(folder, "removed"):
        os.rmdir(folder)  # noqa: PTH106


def remove_tree(folder: Path) -> None:
    """Removes the folder and its content, ignoring errors."""
    shutil.rmtree(folder, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Flushes the names in `folder` to the disk: otherwise a power loss may undo a rename."""
    with _at(folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_way_to(folder: Path, *, levels: int) -> None:
    """Flushes the names of `folder` and of `levels` - 1 parents: if one were lost, its content would be too."""
    for parent in list(folder.parents)[:levels]:
        if os.access(parent, os.R_OK):  # a folder that cannot be read cannot be synced from here
            sync_folder(parent)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a temporary file, syncs and renames it: readers of `path` see the old or the new content, never a part.

    Raises StorageError; then the old content is untouched and no temporary file is left.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{_ASIDE}")
    try:
        descriptor = create(aside)
        try:
            append(descriptor, content.encode() if isinstance(content, str) else content, aside)
            sync(descriptor, aside)
        finally:
            os.close(descriptor)
        move(aside, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            remove(aside)
        if isinstance(error, StorageError):
            raise StorageError.of(error, path) from error  # with the name that the user knows
        raise
    sync_folder(path.parent)


def sweep(folder: Path) -> None:
    """Removes temporary files that a killed `write_atomically` left; the caller must be the only writer."""
    for left in folder.glob(f".*{_ASIDE}"):
        remove(left)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock file `path`, waiting until no other process holds it; the file is never removed."""
    descriptor = open_to_lock(path)
    try:
        with _at(path, "locked"):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _at(path: Path, done: str = "written") -> Iterator[None]:
    """Turns an OSError of the block into a StorageError about `path`."""
    try:
        yield
    except OSError as error:
        raise StorageError.of(error, path, done) from error
