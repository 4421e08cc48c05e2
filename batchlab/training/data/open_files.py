"""Open files that reading moves: worker processes have one position in such a file, which all of them move."""

import contextlib
import fcntl
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from batchlab.printable import printable

OPEN = Path("/dev/fd")  # names the descriptors of this process, on Linux and macOS

Positions = Mapping[int, tuple[int, int]]  # descriptor -> which file it is, and where in it the next read begins


def positions() -> Positions:
    """Where every file stands that this process has open for reading alone: logs and journals move by themselves."""
    found = {}
    for entry in OPEN.iterdir():
        with contextlib.suppress(OSError):  # the listing's own is closed by now
            descriptor = int(entry.name)
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and not fcntl.fcntl(descriptor, fcntl.F_GETFL) & (os.O_WRONLY | os.O_RDWR):
                found[descriptor] = status.st_ino, os.lseek(descriptor, 0, os.SEEK_CUR)
    return found


def moved(before: Positions) -> str | None:
    """The name of a file that stands elsewhere since `before`, `a file` where it has none; None where none does."""
    now = positions()
    for descriptor, (file, position) in before.items():
        if descriptor in now and now[descriptor][0] == file and now[descriptor][1] != position:
            with contextlib.suppress(OSError):
                return printable((OPEN / str(descriptor)).readlink().name)
            return "a file"
    return None
