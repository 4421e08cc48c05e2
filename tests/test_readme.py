"""The README is true: its files are written, its commands are run, and what they print has the shape it shows."""

import json
import re
from collections.abc import Callable

import pytest
from pages import ROOT, Command, Done, Reader, read_page, to_run

from batchlab.sweep.processes.server import WarmServer

README = read_page(ROOT / "README.md")
# Not run here: the first is this very suite, the second serves until it is stopped (tests/cli/test_cli_dashboard.py).
NOT_RUN = {"scripts/test", "scripts/batchlab dashboard"}
# Each has a fast test of its own elsewhere.
MINUTES = (
    "my_net.load batch_size=8,64",
    "precision=fp32,bf16 lr_scaling",
    "instruments=full",
    "batchlab find",
    "model=gpt",
    "resnet18",
)
COMMANDS = [command for command in README if command.line not in NOT_RUN]

Types = Callable[[Command], Done]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, server: WarmServer) -> Reader:
    """A user, in a folder of their own."""
    return Reader(tmp_path_factory.mktemp("reader"), server)


@pytest.fixture
def types(reader: Reader, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Types:
    """What a command does in the reader's folder."""
    return lambda command: reader.types(command, capfd, monkeypatch)


def test_the_two_commands_are_there_and_everything_is_a_command_of_ours() -> None:
    assert COMMANDS[0].line == "scripts/batchlab sweep batch_size=8,32,256"
    assert {command.line for command in README} >= NOT_RUN
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("command", to_run(COMMANDS, slow=MINUTES))
def test_the_command_runs(command: Command, types: Types) -> None:
    done = types(command)
    # doctor's 1 says that something is wrong with this machine, which is for it to say
    assert done.code in ((0, 1) if command.line.endswith("doctor") else (0,)), done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def table(lines: list[str]) -> list[list[str]]:
    """The cells of the rows that begin with a batch size."""
    return [line.split() for line in lines if re.match(r" +\d+  ", line)]


@pytest.mark.parametrize("command", COMMANDS[:2], ids=lambda command: command.line)
def test_the_output_it_shows_is_what_is_printed(command: Command, types: Types) -> None:
    printed = types(command).stdout  # the points are there: the table is made from their records
    expected, seen = table(list(command.shown)), table(printed.splitlines())
    assert len(expected) == len(seen) == 3
    learnt = slice(-4, -2)  # val loss and val accuracy; speed and memory are the machine's
    for shown_row, row in zip(expected, seen, strict=True):
        assert shown_row[:3] == row[:3]  # batch size, peak lr, steps
        assert [float(x) for x in row[learnt]] == pytest.approx([float(x) for x in shown_row[learnt]], abs=0.02)
        assert (shown_row[-1], row[-1]) == ("completed", "completed")


def test_the_readers_own_model_learnt_something(reader: Reader, types: Types) -> None:
    types(next(command for command in COMMANDS if "my_net.Net" in command.line and "width=16" in command.line))
    records = [
        json.loads(path.read_text())
        for path in (reader.folder / "runs" / "my_net.load-my_net.Net").glob("*/record.json")
    ]
    narrow = [record for record in records if record["config"]["model"].get("width") == 16]
    assert sorted(record["batch_size"] for record in narrow) == [8, 64]
    assert all(record["final"]["val/accuracy"] > 0.9 for record in narrow)
