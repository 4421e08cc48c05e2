"""argparse as every command uses it: one line for a mistake, and examples below the help."""

import argparse
from typing import NoReturn

from batchlab.errors import BadRequest


class Parser(argparse.ArgumentParser):
    """The parser of one command: its epilogue is printed unchanged, a mistake becomes a `BadRequest`."""

    def __init__(self, command: str, description: str, epilogue: str) -> None:
        super().__init__(
            prog=f"batchlab {command}".strip(),
            description=description,
            epilog=epilogue,
            allow_abbrev=False,  # `--host` must not be taken as a short form
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags that its help shows."""
        shown = [action for action in self._actions if action.help is not argparse.SUPPRESS]
        return tuple(flag for action in shown for flag in action.option_strings if flag.startswith("--"))

    def error(self, message: str) -> NoReturn:
        raise BadRequest(f"{message}; `{self.prog} --help` shows what it takes")
