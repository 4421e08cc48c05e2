"""How names and numbers are printed: one line each, without control characters, in columns."""

import re
import shlex
from collections.abc import Iterable, Sequence

REPEATED = re.compile(r"(?<!\S)((?:\S+ ){1,3}?)\1{4,}")  # one to three words, at least five times
NOTHING = "-"  # the cell of a missing value


def printable(text: object) -> str:
    """`text` on one line, without control characters.

    A run's name or an error's text may hold escape sequences that move the cursor, recolour the terminal or
    reverse the reading order; lone surrogates, from file names that are not text, cannot be printed at all.
    """
    return "".join(c for c in " ".join(str(text).split()) if c.isprintable())


def shortened(text: object, most: int) -> str:
    """`text` on one line, repeated words once, and the middle left out where it has more than `most` characters."""
    line = REPEATED.sub(lambda found: f"{found[1]}... ({len(found[0]) // len(found[1])} times) ", printable(text))
    return line if len(line) <= most else f"{line[: most // 2].rstrip()} ... {line[-most // 2 :].lstrip()}"


def aligned(
    titles: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (-1,), gap: int = 2
) -> list[str]:
    """Lines of a table: titles (of several lines, bottom-aligned), then `rows`, with `gap` spaces between columns.

    Columns are right-aligned, those numbered in `left` left-aligned.
    """
    heads = [title.split("\n") for title in titles]
    tall = max(map(len, heads))
    table = [list(line) for line in zip(*([""] * (tall - len(head)) + head for head in heads), strict=True)]
    table += [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lefts = {i % len(titles) for i in left}
    return [
        (" " * gap)
        .join(
            cell.ljust(width) if i in lefts else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        .rstrip()
        for row in table
    ]


def number(value: object, spec: str = ".4g") -> str:
    """A measured number as the table shows it; `-` if it is missing."""
    return NOTHING if value is None else format(float(value), spec)  # type: ignore[arg-type]


def counted(number: int, noun: str) -> str:
    """`1 point`, `2 points`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Iterable[object], most: int | None = None, *, separator: str = ", ", last: str = " and ") -> str:
    """`a, b and c`; `a and 2 more` where there are more than the `most` that are named."""
    given = list(map(str, names))
    if most is not None and len(given) > most:
        given[most:], last = [f"{len(given) - most:,} more"], " and "
    return last.join([separator.join(given[:-1]), *given[-1:]] if len(given) > 1 else given)


def command_line(words: Iterable[str]) -> str:
    """A command to type: words joined as a shell reads them back.

    As `shlex.join`, but a word that has single quotes is put into double ones: "runs_dir='my runs'".
    """
    return " ".join(f'"{w}"' if "'" in w and not re.search(r'["$`\\!]', w) else shlex.quote(w) for w in words)


def as_sentence(reason: str) -> str:
    """A reason as a sentence: it begins with a capital letter and ends with a full stop."""
    return f"{reason[:1].upper()}{reason[1:].rstrip('.')}."


def signed(effect: float) -> str:
    """`+0.031`; `+0` where the effect is only rounding (of numbers near 1)."""
    return f"{0.0 if abs(effect) < 1e-12 else effect:+.3g}"
