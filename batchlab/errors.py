"""What can go wrong, in the words the user reads."""

import difflib
import errno
from collections.abc import Iterable
from pathlib import Path


class BatchlabError(Exception):
    """Anything batchlab raises on purpose; the command line prints it as one line, without a traceback."""


class BadRequest(BatchlabError):  # noqa: N818 - it is the user's request that is bad, and reads so at every raise
    """The user's mistake: the message says what was asked, why it cannot be, and what to type instead."""


class StorageError(BatchlabError, OSError):
    """The disk refused: full, read-only, gone. Exit code 74, and what was finished before stays.

    The message names the path, what the system said, and what to do about it; `errno` is the system's.
    """

    @classmethod
    def of(cls, error: OSError, path: Path, done: str = "written") -> "StorageError":
        """What `error` means for `path`, which could not be `done`."""
        found = cls(f"{path} cannot be {done}: {error.strerror or error}; {_ADVICE.get(error.errno or 0, _MEND)}")
        found.errno, found.strerror = error.errno, error.strerror
        return found

    def __str__(self) -> str:
        return str(self.args[0])  # OSError's own would be "[Errno 28] ..."


_MEND = "mend the disk or use runs_dir=... elsewhere, and run the same command again"
_ADVICE = dict.fromkeys(
    (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    "make room or use runs_dir=... elsewhere, and run the same command again",
) | dict.fromkeys(
    (errno.EACCES, errno.EPERM, errno.EROFS),
    "use runs_dir=... in a folder you may write to, and run the same command again",
)


class EmptyGrid(BatchlabError):  # noqa: N818 - a name for an outcome, not for a fault
    """A sweep with no points in it: exit code 4, so that scripts can tell it from a typo."""


class Diverged(BatchlabError):  # noqa: N818 - a result of a run, recorded and shown, not a fault
    """Training left the numbers that mean something; the message names the step, the rate and the symptom."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`": did you mean 'batch_size'?"` for the nearest of `known`, or `""` where nothing is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f": did you mean '{near[0]}'?" if near else ""
