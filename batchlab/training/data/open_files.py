"""Detects files whose position moves on reading: worker processes would share that position."""

import contextlib
import fcntl
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from batchlab.printable import printable

OPEN = Path("/dev/fd")  # lists the descriptors of this process, on Linux and macOS

Positions = Mapping[int, tuple[int, int]]  # descriptor -> (inode, offset of the next read)


def positions() -> Positions:
    """The position of every file that this process has open read-only; those open for writing (logs) move anyway."""
    found = {}
    for entry in OPEN.iterdir():
        with contextlib.suppress(OSError):  # the listing's own descriptor is closed by now
            descriptor = int(entry.name)
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and not fcntl.fcntl(descriptor, fcntl.F_GETFL) & (os.O_WRONLY | os.O_RDWR):
                found[descriptor] = status.st_ino, os.lseek(descriptor, 0, os.SEEK_CUR)
    return found


def moved(before: Positions) -> str | None:
    """The name of a file whose position has changed since `before` (`a file` if it has no name), or None."""
    now = positions()
    for descriptor, (file, position) in before.items():
        if descriptor in now and now[descriptor][0] == file and now[descriptor][1] != position:
            with contextlib.suppress(OSError):
                return printable((OPEN / str(descriptor)).readlink().name)
            return "a file"
    return None
