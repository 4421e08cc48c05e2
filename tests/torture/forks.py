"""Doing something in a child of its own, and hearing how it ended."""

import functools
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

WENT_WRONG = 99


@dataclass(frozen=True)
class Ending:
    """How a child ended: killed by a signal (negative), or what its function returned."""

    code: int
    reported: Any

    @property
    def killed(self) -> bool:
        return self.code < 0


def in_a_child(work: Callable[[], Any]) -> Ending:
    """Forks, runs `work` there and takes what it returns (plain JSON); a traceback is code 99."""
    return _ending(*_started(work))


def shared_out(cases: Sequence[Any], work: Callable[[Any], str | None], jobs: int) -> list[str | None]:
    """`work` of every case, in `jobs` children at once."""

    def share(number: int) -> list[str | None]:
        return [work(case) for case in cases[number::jobs]]

    started = [_started(functools.partial(share, number)) for number in range(jobs)]
    found: list[str | None] = []
    for ending in [_ending(*child) for child in started]:
        found += ending.reported if ending.code == 0 else [f"a share was not done: {ending}"]
    return found


def _started(work: Callable[[], Any]) -> tuple[int, IO[str]]:
    output = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `_ending`
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child != 0:
        return child, output
    code = WENT_WRONG
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        json.dump(work(), output)
        output.flush()
        code = 0
    except BaseException:
        traceback.print_exc(file=output)
        output.flush()
    finally:
        os._exit(code)


def _ending(child: int, output: IO[str]) -> Ending:
    _, status = os.waitpid(child, 0)
    with output:
        output.seek(0)
        text = output.read()
    code = os.waitstatus_to_exitcode(status)
    return Ending(code, json.loads(text) if code == 0 else text)
