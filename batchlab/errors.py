"""What can go wrong, in the words the user reads."""

import difflib
from collections.abc import Iterable


class BatchlabError(Exception):
    """Anything batchlab raises on purpose; the command line prints it as one line, without a traceback."""


class BadRequest(BatchlabError):  # noqa: N818 - it is the user's request that is bad, and reads so at every raise
    """The user's mistake: the message says what was asked, why it cannot be, and what to type instead."""


class EmptyGrid(BatchlabError):  # noqa: N818 - a name for an outcome, not for a fault
    """A sweep with no points in it: exit code 4, so that scripts can tell it from a typo."""


class Diverged(BatchlabError):  # noqa: N818 - a result of a run, recorded and shown, not a fault
    """Training left the numbers that mean something; the message names the step, the rate and the symptom."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`": did you mean 'batch_size'?"` for the nearest of `known`, or `""` where nothing is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f": did you mean '{near[0]}'?" if near else ""
