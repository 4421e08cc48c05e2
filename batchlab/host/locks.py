"""Locks between programs of one machine: files in a folder of the user's own, which the system unlocks with a process.

They are no part of a run, and lie below the floor of `recording/disk.py`, whose writes are durable and these not.
"""

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

_OWN_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCKED = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def own_folder() -> Path:
    """`$XDG_RUNTIME_DIR/batchlab-<uid>`, or below the folder for temporary files where there is no such folder."""
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", ""))  # a job may have been handed one of another machine
    parent = runtime if runtime.is_absolute() and runtime.is_dir() else Path(tempfile.gettempdir())
    return parent / f"batchlab-{os.getuid()}"


def make_private(folder: Path) -> None:
    """Makes `folder`, of `own_folder`, for its owner alone; PermissionError where somebody else could write to it."""
    own = own_folder()
    with contextlib.suppress(FileExistsError):
        own.mkdir(mode=0o700)  # private from its first moment, and a link is no folder to it
    found = own.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError("it is not a folder that only you can write to")
    folder.mkdir(parents=True, exist_ok=True)


def create(path: Path) -> int:
    """A descriptor of a file that did not exist before, locked; no link is followed."""
    descriptor = os.open(path, _OWN_FILE, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def open_to_lock(path: Path) -> int:
    """A descriptor of a file that is made and stays."""
    return os.open(path, _LOCKED, 0o600)


def lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Locks the file, unless another holds it."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def release(descriptor: int) -> None:
    """Unlocks and closes; a child of a fork may have the descriptor too, and closing alone would leave it the lock."""
    with contextlib.suppress(OSError):  # of a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether a living process has the file locked."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return not lock(descriptor, fcntl.LOCK_SH)  # so that two who look do not take each other for its holder
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """The file is gone; nothing where it was."""
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits until nobody else is inside for the same `path`, a file that is made and stays."""
    descriptor = open_to_lock(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
