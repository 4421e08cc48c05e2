"""The findings of `check`, as plain text that is sent to the parent process."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from batchlab.errors import BadRequest
from batchlab.printable import printable, shortened
from batchlab.training.passes.contract import Breach, Severity

SECONDS = 60.0  # that a check may take: trials that would take longer are left out
COLUMN = 10  # characters of the longest name
MOST = 700  # characters of a finding


class Level(Enum):
    """The severity; the value is its label in the output."""

    OK = "ok"
    BETTER = "better"  # it works but could be improved
    WRONG = "WRONG"


@dataclass(frozen=True)
class Finding:
    """A finding of one trial."""

    name: str
    level: Level
    what: str
    advice: str = ""  # what to do about it, if it is not ok


def ok(name: str, what: str) -> Finding:
    return Finding(name, Level.OK, what)


def better(name: str, what: str, advice: str) -> Finding:
    return Finding(name, Level.BETTER, what, advice)


def wrong(name: str, what: str, advice: str) -> Finding:
    return Finding(name, Level.WRONG, what, advice)


def refused(name: str, error: BadRequest) -> Finding:
    """The finding about what batchlab refuses; its sentence ends with what to type instead."""
    what, colon, advice = str(error).rpartition(": ")
    return wrong(name, what, advice) if colon else wrong(name, advice, "")


def finding_of(breach: Breach) -> Finding:
    """The finding about a broken clause of the contract."""
    make = better if breach.severity is Severity.BETTER else wrong
    return make(breach.about, breach.what, breach.advice)


def is_wrong(findings: Sequence[Finding]) -> bool:
    """Whether one of them prevents batchlab from measuring."""
    return any(finding.level is Level.WRONG for finding in findings)


@dataclass(frozen=True)
class Rest:
    """What the trials left out, after the last finding."""

    untried: tuple[str, ...] = ()  # because something is wrong that they need
    too_slow: tuple[str, ...] = ()  # for SECONDS
    pass_seconds: float = 0.0  # of one forward and backward pass
    is_whole_batch: bool = False  # whether the loss is of the batch as a whole (reduction=batch)


@dataclass(frozen=True)
class Doing:
    """What starts now and may take long, such as `building the model`: the user's code is not interrupted."""

    what: str


@dataclass(frozen=True)
class Checkup:
    """All findings, and the trials that were skipped."""

    findings: tuple[Finding, ...]
    untried: tuple[str, ...] = ()
    too_slow: tuple[str, ...] = ()


def collected(found: Iterable[Finding | Rest | Doing]) -> Checkup:
    """The findings, and all that was left out."""
    findings: list[Finding] = []
    rests: list[Rest] = []
    for each in found:
        if isinstance(each, Rest):
            rests.append(each)
        elif isinstance(each, Finding):
            findings.append(each)
    untried = tuple(name for rest in rests for name in rest.untried)
    return Checkup(tuple(findings), untried, tuple(name for rest in rests for name in rest.too_slow))


def lines(finding: Finding) -> list[str]:
    """A finding and its advice, as they are printed."""
    output = [f"{finding.level.value:<8}{finding.name:<{COLUMN}}  {shortened(finding.what, MOST)}"]
    if finding.advice:
        output.append(f"{'':<8}{'':<{COLUMN}}  To do: {printable(finding.advice)}")
    return output


def summary(checkup: Checkup, after: str) -> str:
    """How many things are wrong, what was not tested, and the command to type `after` it."""
    wrongs = sum(finding.level is Level.WRONG for finding in checkup.findings)
    betters = sum(finding.level is Level.BETTER for finding in checkup.findings)
    could = f"{betters} could be better" if betters else ""
    slow = f" Not tested within {SECONDS:.0f} s: {', '.join(checkup.too_slow)}." if checkup.too_slow else ""
    if wrongs:
        are = "1 thing is wrong" if wrongs == 1 else f"{wrongs} things are wrong"
        later = f" Not tested because of this: {', '.join(checkup.untried)}." if checkup.untried else ""
        return f"{', '.join(part for part in (are, could) if part)}.{later}{slow}"
    return f"Nothing is wrong{', ' + could if could else ''}.{slow} Next: {after}"
