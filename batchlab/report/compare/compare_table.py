"""A comparison of two studies as lines of text."""

import math
from collections.abc import Iterator, Sequence

from batchlab.printable import NOTHING, aligned, counted, listed, printable
from batchlab.report.compare.comparison import ClaimPair, Comparison, Measured, Setting
from batchlab.science.statistics.uncertainty import Interval
from batchlab.science.statistics.verdicts import Verdict

MOST_VALUES = 6  # of a setting in one cell
LONGEST = 60  # characters of a name or a value


def lines(comparison: Comparison) -> list[str]:
    """Settings that differ, the points that both have, the claims, and what the numbers do not show."""
    first, second = comparison.names
    return [
        f"A is {first}, B is {second}.",
        "",
        *_settings(comparison.settings),
        "",
        *_measured(comparison.measured),
        "",
        *_claims(comparison.claims),
        *([""] if comparison.notes else []),
        *map(printable, comparison.notes),
    ]


def _settings(settings: Sequence[Setting]) -> list[str]:
    if not settings:
        return ["No setting differs, as far as it was recorded."]
    rows = [[_short(setting.name), _values(setting.first), _values(setting.second)] for setting in settings]
    return ["Settings that differ:", *aligned(["", "A", "B"], rows, left=(0, 1, 2))]


def _measured(measured: Sequence[Measured]) -> list[str]:
    if not measured:
        return ["No quantity was measured at the same points in both."]
    rows = [
        [
            row.quantity,
            str(row.batch_size),
            f"{row.first:.4g}",
            f"{row.second:.4g}",
            _ratio(row.change) if row.relative else _difference(row.change),
            _resolved(row.change, 1.0 if row.relative else 0.0),
            str(row.change.n),
        ]
        for row in measured
    ]
    titles = ["", "batch\nsize", "A", "B", "B minus A,\nor B over A", "", "seeds"]
    return [
        "The same points in both, paired by seed (in brackets: 95% intervals, from two seeds on):",
        *aligned(titles, rows, left=(0, 4, 5)),
        *_by_chance([(row.change, 1.0 if row.relative else 0.0) for row in measured]),
    ]


def _claims(claims: Sequence[ClaimPair]) -> list[str]:
    if not claims:
        return ["No claim was judged in both."]
    rows = [[_short(pair.id), str(pair.verdicts[0]), str(pair.verdicts[1]), _agree(pair)] for pair in claims]
    found = ["The claims:", *aligned(["", "A", "B", ""], rows, left=(0, 1, 2, 3))]
    compared = [(pair, between) for pair in claims for between in pair.between]
    if not compared:
        return [*found, "", "No comparison of a claim was made in both studies."]
    found += ["", "Effects, positive if they support the claim; the studies count as independent samples:"]
    cells = [
        [
            _short(pair.id),
            _short(
                f"{between.what} ({between.held_equal}; lr {' and '.join(dict.fromkeys(map(str, between.set_by)))})"
            ),
            _difference(between.first, sign=""),
            _difference(between.second, sign=""),
            f"{_difference(between.change)} {printable(between.unit)}".rstrip(),
            _resolved(between.change, 0.0),
        ]
        for pair, between in compared
    ]
    found += aligned(["", "comparison", "A", "B", "B minus A", ""], cells, left=(0, 1, 2, 3, 4, 5))
    return [*found, *_by_chance([(between.change, 0.0) for _, between in compared])]


def _agree(pair: ClaimPair) -> str:
    if Verdict.NOT_TESTED in pair.verdicts:
        return ""
    return "the same" if pair.verdicts[0] == pair.verdicts[1] else "different"


def _by_chance(changes: Sequence[tuple[Interval, float]]) -> Iterator[str]:
    """How many of many 95% intervals differ, and how many would by chance."""
    known = [(change, none) for change, none in changes if change.low is not None]
    differ = sum(_resolved(change, none) == "differs" for change, none in known)
    if known:
        yield (
            f"{differ} of {counted(len(known), '95% interval')} exclude no change; without any difference, about one "
            "in 20 does so by chance."
        )


def _resolved(change: Interval, none: float) -> str:
    if change.low is None or change.high is None:
        return "one seed: no error bars" if change.n < 2 else "no interval"
    return "differs" if change.low > none or change.high < none else "not shown to differ"


def _difference(change: Interval, sign: str = "+") -> str:
    if math.isnan(change.value):
        return NOTHING
    if change.low is None or change.high is None:
        return f"{change.value:{sign}.3g}"
    return f"{change.value:{sign}.3g} [{change.low:{sign}.3g}, {change.high:{sign}.3g}]"


def _ratio(change: Interval) -> str:
    if change.low is None or change.high is None:
        return f"x{change.value:.3g}"
    return f"x{change.value:.3g} [{change.low:.3g}, {change.high:.3g}]"


def _values(values: Sequence[str]) -> str:
    return listed(map(_short, values), MOST_VALUES, last=", ") or NOTHING


def _short(text: str) -> str:
    line = printable(text)
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."
