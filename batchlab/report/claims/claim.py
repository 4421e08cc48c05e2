"""What the report says about one statement on batch size, and the comparisons it is based on."""

from dataclasses import dataclass

from batchlab.report.tables.groups import Tuning
from batchlab.science.statistics.verdicts import Effect, Verdict


@dataclass(frozen=True)
class Evidence:
    """One comparison, and what makes it fair or not."""

    what: str  # "log training seconds per epoch: slope on log batch size"
    held_equal: str  # "equal examples", "equal steps", ...: the constants of evidence.py
    rate: Tuning
    effect: Effect
    unit: str
    seeds: int
    runs: tuple[str, ...]  # run ids it is based on


@dataclass(frozen=True)
class Claim:
    """A statement, its verdict, and why."""

    id: str
    statement: str
    verdict: Verdict
    evidence: tuple[Evidence, ...]
    why: str  # one sentence: what decided it, or what is missing
    command: str  # for `not tested`: the exact command that would test it; otherwise empty
    seeds_needed: int | None  # for the effect seen, at 80% power; None if unknown
