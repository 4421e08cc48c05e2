"""What a child process finds arrives one by one, and its end before the last is reported."""

import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchlab.errors import BadRequest
from batchlab.sweep.checks import replies_of
from batchlab.sweep.processes.server import WarmServer

MOST_SECONDS = 30


def first_then_whether_it_was_read(pipe: Path) -> Iterator[object]:
    """Yields once, and then whether the parent wrote to the pipe, which it does when it has read the first reply."""
    yield "first"
    descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    readable, _, _ = select.select([descriptor], [], [], MOST_SECONDS)
    yield bool(readable)


def one_and_then_the_end_of_its_process(code: int) -> Iterator[object]:
    yield "first"
    os._exit(code)


def test_a_reply_arrives_while_the_child_still_examines(tmp_path: Path, server: WarmServer) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    replies = replies_of(server, first_then_whether_it_was_read, pipe, doing=lambda: "reading")

    assert next(replies) == "first"
    with pipe.open("w") as opened:
        opened.write("read")

    assert list(replies) == [True]


def test_the_end_of_a_child_before_its_last_reply_is_reported(server: WarmServer) -> None:
    replies = replies_of(server, one_and_then_the_end_of_its_process, 7, doing=lambda: "reading")

    assert next(replies) == "first"
    with pytest.raises(BadRequest, match=r"reading failed: .*exit code 7"):
        next(replies)
