"""Locks between programs of one machine: files in a private folder, which the system unlocks when a process ends.

They are not part of a run and need no durable writes, so they do not use `recording/disk.py`, a layer above.
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
    """`$XDG_RUNTIME_DIR/batchlab-<uid>`, or below the folder for temporary files if that does not exist."""
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", ""))  # a job may have inherited the value of another machine
    parent = runtime if runtime.is_absolute() and runtime.is_dir() else Path(tempfile.gettempdir())
    return parent / f"batchlab-{os.getuid()}"


def make_private(folder: Path) -> None:
    """Makes `folder`, inside `own_folder`, private; PermissionError if another user could write to it."""
    own = own_folder()
    with contextlib.suppress(FileExistsError):
        own.mkdir(mode=0o700)  # private from the start; fails on a link
    found = own.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError("it is not a folder that only you can write to")
    folder.mkdir(parents=True, exist_ok=True)


def create(path: Path) -> int:
    """A descriptor of a new, locked file; links are not followed."""
    descriptor = os.open(path, _OWN_FILE, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def open_to_lock(path: Path) -> int:
    """A descriptor of a lock file, which is created if needed and never removed."""
    return os.open(path, _LOCKED, 0o600)


def lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Locks the file, unless another process holds it; whether it did."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def release(descriptor: int) -> None:
    """Unlocks and closes. Closing is not enough: a forked child may share the descriptor and keep the lock."""
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether a living process has the file locked."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return not lock(descriptor, fcntl.LOCK_SH)  # shared: two processes that check do not block each other
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Removes the file, if it exists."""
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock file `path`, waiting until no other process holds it; the file is never removed."""
    descriptor = open_to_lock(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
