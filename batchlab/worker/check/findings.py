"""The findings of `check`, as plain text that is sent to the parent process."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from batchlab.printable import printable
from batchlab.training.passes.contract import Breach, Severity


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


def finding_of(breach: Breach) -> Finding:
    """The finding about a broken clause of the contract."""
    make = better if breach.severity is Severity.BETTER else wrong
    return make(breach.about, breach.what, breach.advice)


def is_wrong(findings: Sequence[Finding]) -> bool:
    """Whether one of them prevents batchlab from measuring."""
    return any(finding.level is Level.WRONG for finding in findings)


@dataclass(frozen=True)
class Checkup:
    """All findings, and the trials that were skipped."""

    findings: tuple[Finding, ...]
    untried: tuple[str, ...] = ()


def lines(checkup: Checkup, after: str) -> list[str]:
    """The output: a line for each finding and its advice, a summary, and the command to type `after` it."""
    output: list[str] = []
    findings = checkup.findings
    column = max((len(finding.name) for finding in findings), default=0)
    for finding in findings:
        output.append(f"{finding.level.value:<8}{finding.name:<{column}}  {printable(finding.what)}")
        if finding.advice:
            output.append(f"{'':<8}{'':<{column}}  To do: {printable(finding.advice)}")
    wrongs = sum(finding.level is Level.WRONG for finding in findings)
    betters = sum(finding.level is Level.BETTER for finding in findings)
    could = f"{betters} could be better" if betters else ""
    if wrongs:
        are = "1 thing is wrong" if wrongs == 1 else f"{wrongs} things are wrong"
        later = f" Not tested because of this: {', '.join(checkup.untried)}." if checkup.untried else ""
        return [*output, "", f"{', '.join(part for part in (are, could) if part)}.{later}"]
    return [*output, "", f"Nothing is wrong{', ' + could if could else ''}. Next: {after}"]
