"""argparse as every word uses it: one line for a mistake, and examples below the help."""

import argparse
from typing import NoReturn

from batchlab.errors import BadRequest


class Parser(argparse.ArgumentParser):
    """The parser of one word: its epilogue is printed as it is written, a mistake becomes a `BadRequest`."""

    def __init__(self, word: str, description: str, epilogue: str) -> None:
        super().__init__(
            prog=f"batchlab {word}".strip(),
            description=description,
            epilog=epilogue,
            allow_abbrev=False,  # `--host` must be no short form of anything
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        raise BadRequest(f"{message}; `{self.prog} --help` shows what it takes")
