"""Output of the commands: to stdout, in the width of the terminal."""

import shutil
import sys
import textwrap
from collections.abc import Iterable


def say(text: str = "") -> None:
    """Prints a result to stdout; names from outside must have gone through `printable`."""
    print(text)  # noqa: T201 - the output of a command


def complain(text: str) -> None:
    """Prints one line to stderr: a warning or an error."""
    print(text, file=sys.stderr)  # noqa: T201


def width() -> int:
    """Columns that a text may use: the terminal's, or 120 for a file."""
    return max(60, shutil.get_terminal_size((120, 24)).columns)


LONGEST_NAME = 24  # a longer one gets a line to itself


def definitions(
    rows: Iterable[tuple[str, str]], *, indent: int = 2, column: int | None = None, columns: int | None = None
) -> str:
    """Names with their meanings next to them, wrapped to `columns`; `column` is the width of the names."""
    listed = list(rows)
    longest = max((len(name) for name, _ in listed), default=0)
    left = (column or min(LONGEST_NAME, longest)) + indent + 2
    lines: list[str] = []
    for name, meaning in listed:
        start = " " * indent + name
        if len(start) + 2 > left:
            lines.append(start)
            start = ""
        wrapped = textwrap.wrap(
            meaning, columns or min(width(), 110), initial_indent=start.ljust(left), subsequent_indent=" " * left
        )
        lines.extend(wrapped or [start])
    return "\n".join(lines)
