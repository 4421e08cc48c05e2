"""Describes an error of the user's code in one line."""

import traceback
from pathlib import Path

from batchlab.adapters.installed import how_to_install
from batchlab.errors import BatchlabError
from batchlab.printable import shortened
from batchlab.training.devices.broken_context import advice

OURS = Path(__file__).resolve().parents[1]
MOST = 300  # characters of a message that are quoted


def message_and_place(error: BaseException) -> str:
    """The message and the place in the user's own files; errors raised by batchlab are complete as they are."""
    if isinstance(error, BatchlabError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if _is_the_users(Path(f.filename).resolve())]
    where = own[-1] if own else frames[-1]
    text = shortened((str(error).strip() or "no message").splitlines()[0], MOST)
    # Of an installed package the path shows which: torch/nn/modules/linear.py.
    package = where.filename.rpartition("site-packages/")[2]
    name = package if package != where.filename and not own else Path(where.filename).name
    place = f"({name}, line {where.lineno}, in {where.name})"
    return f"{type(error).__name__}: {text} {place}{advice(error)}{how_to_install(error)}"


def _is_the_users(file: Path) -> bool:
    return file.is_relative_to(Path.cwd()) and "site-packages" not in file.parts and not file.is_relative_to(OURS)
