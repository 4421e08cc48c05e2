"""Describes an error of the user's code in one line."""

import contextlib
import inspect
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

from batchlab.adapters.installed import how_to_install
from batchlab.errors import BatchlabError, did_you_mean
from batchlab.printable import shortened
from batchlab.task import Task
from batchlab.training.devices.broken_context import advice

OURS = Path(__file__).resolve().parents[1]
UNKNOWN_ARGUMENT = re.compile(r"Task\.__init__\(\) got an unexpected keyword argument '(\w+)'")
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


@contextlib.contextmanager
def naming_the_argument() -> Iterator[None]:
    """Around a call of the user's code: if it gives Task an unknown argument, the error names the one it may mean."""
    try:
        yield
    except TypeError as error:
        if (found := UNKNOWN_ARGUMENT.fullmatch(str(error))) is not None:
            known = [name for name in inspect.signature(Task).parameters if name != "self"]
            error.args = (str(error) + (did_you_mean(found[1], known) or f": it takes {', '.join(known)}"),)
        raise


def _is_the_users(file: Path) -> bool:
    return file.is_relative_to(Path.cwd()) and "site-packages" not in file.parts and not file.is_relative_to(OURS)
