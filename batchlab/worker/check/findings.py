"""What `check` found: plain words, which the parent of the process that found them can read."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from batchlab.printable import printable
from batchlab.training.passes.contract import Breach, Severity


class Level(Enum):
    """How bad it is; the value is what stands before it in the answer."""

    OK = "ok"
    BETTER = "better"  # it works, and could be better
    WRONG = "WRONG"


@dataclass(frozen=True)
class Finding:
    """The answer of one trial."""

    name: str
    level: Level
    what: str
    mend: str = ""  # what to do about it, where it is not ok


def ok(name: str, what: str) -> Finding:
    return Finding(name, Level.OK, what)


def better(name: str, what: str, mend: str) -> Finding:
    return Finding(name, Level.BETTER, what, mend)


def wrong(name: str, what: str, mend: str) -> Finding:
    return Finding(name, Level.WRONG, what, mend)


def finding_of(breach: Breach) -> Finding:
    """What is said of a broken clause of the contract."""
    make = better if breach.severity is Severity.BETTER else wrong
    return make(breach.about, breach.what, breach.advice)


def is_wrong(findings: Sequence[Finding]) -> bool:
    """Whether one of them keeps batchlab from measuring."""
    return any(finding.level is Level.WRONG for finding in findings)


@dataclass(frozen=True)
class Checkup:
    """All that was found, and the trials that made no sense any more."""

    findings: tuple[Finding, ...]
    untried: tuple[str, ...] = ()


def lines(checkup: Checkup, after: str) -> list[str]:
    """The whole answer, a line for each finding and one for each mending; what it comes to, and what comes `after`."""
    answer: list[str] = []
    findings = checkup.findings
    column = max((len(finding.name) for finding in findings), default=0)
    for finding in findings:
        answer.append(f"{finding.level.value:<8}{finding.name:<{column}}  {printable(finding.what)}")
        if finding.mend:
            answer.append(f"{'':<8}{'':<{column}}  To do: {printable(finding.mend)}")
    wrongs = sum(finding.level is Level.WRONG for finding in findings)
    betters = sum(finding.level is Level.BETTER for finding in findings)
    could = f"{betters} could be better" if betters else ""
    if wrongs:
        are = "1 thing is wrong" if wrongs == 1 else f"{wrongs} things are wrong"
        later = f" Not tried: {', '.join(checkup.untried)}." if checkup.untried else ""
        return [*answer, "", f"{', '.join(part for part in (are, could) if part)}.{later}"]
    return [*answer, "", f"Nothing is wrong{', ' + could if could else ''}. Next: {after}"]
