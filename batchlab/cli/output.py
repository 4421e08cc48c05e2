"""How the words speak: to stdout, in the width there is."""

import shutil
import sys
import textwrap
from collections.abc import Iterable


def say(text: str = "") -> None:
    """One answer of the command line, on stdout; what names hold must have gone through `printable`."""
    print(text)  # noqa: T201 - a command line answers by printing


def complain(text: str) -> None:
    """One line on stderr: what is no answer."""
    print(text, file=sys.stderr)  # noqa: T201


def width() -> int:
    """Columns that a text may use: the terminal's, or 120 where there is none, as a file has no edge."""
    return max(60, shutil.get_terminal_size((120, 24)).columns)


LONGEST_WORD = 24  # a longer one stands alone in its line


def definitions(
    rows: Iterable[tuple[str, str]], *, indent: int = 2, words: int | None = None, columns: int | None = None
) -> str:
    """Words with their meanings beside them, wrapped to `columns`; `words` is the width of the words' column."""
    listed = list(rows)
    longest = max((len(word) for word, _ in listed), default=0)
    column = (words or min(LONGEST_WORD, longest)) + indent + 2
    lines: list[str] = []
    for word, meaning in listed:
        start = " " * indent + word
        if len(start) + 2 > column:
            lines.append(start)
            start = ""
        wrapped = textwrap.wrap(
            meaning, columns or min(width(), 110), initial_indent=start.ljust(column), subsequent_indent=" " * column
        )
        lines.extend(wrapped or [start])
    return "\n".join(lines)
