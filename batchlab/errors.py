"""The exceptions that batchlab raises; their messages are shown to the user."""

import difflib
import errno
from collections.abc import Iterable
from pathlib import Path


class BatchlabError(Exception):
    """The base of all errors that batchlab raises; the command line prints one line, without a traceback."""


class BadRequest(BatchlabError):  # noqa: N818 - it is the user's request that is bad, and reads so at every raise
    """A mistake of the user: the message says what was requested, why it is not possible, and what to type instead."""


class StorageError(BatchlabError, OSError):
    """A read or write failed: the disk is full, read-only or missing. Exit code 74; earlier results remain.

    The message names the path, the system's error, and what to do about it; `errno` is the system's.
    """

    @classmethod
    def of(cls, error: OSError, path: Path, done: str = "written") -> "StorageError":
        """The error for `path`, which could not be `done`, caused by `error`."""
        found = cls(f"{path} cannot be {done}: {error.strerror or error}; {_ADVICE.get(error.errno or 0, _FIX)}")
        found.errno, found.strerror = error.errno, error.strerror
        return found

    def __str__(self) -> str:
        return str(self.args[0])  # OSError's own would be "[Errno 28] ..."


_FIX = "fix the disk or use runs_dir=... elsewhere, and run the same command again"
_ADVICE = dict.fromkeys(
    (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    "free some space or use runs_dir=... elsewhere, and run the same command again",
) | dict.fromkeys(
    (errno.EACCES, errno.EPERM, errno.EROFS),
    "use runs_dir=... with a folder that you may write to, and run the same command again",
)


class EmptyGrid(BatchlabError):  # noqa: N818 - a name for an outcome, not for a fault
    """A sweep with no points in it: exit code 4, so that scripts can tell it from a typo."""


class Diverged(BatchlabError):  # noqa: N818 - a result of a run, recorded and shown, not a fault
    """Training diverged; the message names the step, the learning rate and the symptom."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`": did you mean 'batch_size'?"` for the closest of `known`, or `""` if none is close."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f": did you mean '{near[0]}'?" if near else ""
