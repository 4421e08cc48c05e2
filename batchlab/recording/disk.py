"""The one door to the disk: every durable write of a run or a study goes through here.

Each function does one thing to the disk and raises StorageError, which names the path and what the system said. A test
fails every call of this module in turn, and another asserts that nobody else writes.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from batchlab.errors import StorageError

# Not the caller's fault if a link of that name waits in the folder: it is never followed.
_OWN_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_APPENDED = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCKED = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_ASIDE = ".tmp"  # the end of a name that is not yet the file's own


def make_folder(path: Path) -> None:
    """`path` and what it lies in; nothing where it is there."""
    with _at(path, "made"):
        os.makedirs(path, exist_ok=True)  # noqa: PTH103 - all of this module's calls are os's, for the test's sake


def make_folder_inside(path: Path) -> None:
    """`path` alone: StorageError where what it lies in is gone, or it would come back empty around what is written."""
    with _at(path, "made"), contextlib.suppress(FileExistsError):
        os.mkdir(path)  # noqa: PTH102


def create(path: Path) -> int:
    """A descriptor for writing to a file that did not exist before; FileExistsError otherwise."""
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
    """A descriptor of a file that is made and stays."""
    with _at(path):
        return os.open(path, _LOCKED, 0o666)


def append(descriptor: int, data: bytes, path: Path) -> None:
    """All of `data`, or StorageError after any part of it."""
    with _at(path):
        written = 0
        while written < len(data):
            written += os.write(descriptor, data[written:])


def cut(descriptor: int, length: int, path: Path) -> None:
    """The file's first `length` bytes stay."""
    with _at(path):
        os.ftruncate(descriptor, length)


def sync(descriptor: int, path: Path) -> None:
    """What was written is on the disk, and not only with the system."""
    with _at(path):
        os.fsync(descriptor)


def move(source: Path, target: Path) -> None:
    """`source` is called `target`, in place of any file that was."""
    with _at(target):
        os.replace(source, target)  # noqa: PTH105


def remove(path: Path) -> None:
    """The file is gone; nothing where it was."""
    with _at(path, "removed"), contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108


def remove_folder(folder: Path) -> None:
    """The empty folder is gone; StorageError where it holds something."""
    with _at(folder, "removed"):
        os.rmdir(folder)  # noqa: PTH106


def remove_tree(folder: Path) -> None:
    """The folder and all in it is gone, as far as the system lets."""
    shutil.rmtree(folder, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Puts the names in `folder` on the disk: a moved file may otherwise be lost with the power."""
    with _at(folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_way_to(folder: Path, *, levels: int) -> None:
    """Puts the names of `folder` and of the `levels` - 1 above it on the disk: a lost one takes along what is in it."""
    for parent in list(folder.parents)[:levels]:
        if os.access(parent, os.R_OK):  # where one may write and not look, only the system can
            sync_folder(parent)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes aside, on to the disk, then moves: whoever reads `path` sees the old content or the new, never a part.

    Raises StorageError, with the old content untouched and nothing left aside.
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
            raise StorageError.of(error, path) from error  # nobody knows of the file aside
        raise
    sync_folder(path.parent)


def sweep(folder: Path) -> None:
    """Removes what a killed `write_atomically` left in `folder`; its caller must be the only writer there."""
    for left in folder.glob(f".*{_ASIDE}"):
        remove(left)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits until nobody else is inside for the same `path`, a file that is made and stays."""
    descriptor = open_to_lock(path)
    try:
        with _at(path, "locked"):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _at(path: Path, done: str = "written") -> Iterator[None]:
    """What the system refuses in here, with the path it was about."""
    try:
        yield
    except OSError as error:
        raise StorageError.of(error, path, done) from error
