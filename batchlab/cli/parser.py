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

    def error(self, message: str) -> NoReturn:
        raise BadRequest(f"{message}; `{self.prog} --help` shows what it takes")
