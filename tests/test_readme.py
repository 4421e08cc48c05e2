"""The README is true: its files are written, its commands are run, and what they print has the shape it shows."""

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from batchlab.cli.main import main
from batchlab.sweep.server import WarmServer

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.removeprefix("$ ")
    for kind, text in BLOCKS
    if kind == "console"
    for line in text.splitlines()
    if line[:2] == "$ "
]
# Not run here: the first is this very suite, the second serves until it is stopped (tests/cli/test_cli_dashboard.py).
NOT_RUN = {"scripts/test", "scripts/batchlab dashboard"}
MINUTES = ("instruments=full", "batchlab find")  # with a fast test of each elsewhere
RUN = [
    pytest.param(command, marks=[pytest.mark.slow] if any(part in command for part in MINUTES) else [])
    for command in COMMANDS
    if command not in NOT_RUN
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder, with the README's files in it."""
    made = tmp_path_factory.mktemp("reader")
    for kind, text in BLOCKS:
        if kind == "python":
            name = re.match(r"# (\w+\.py)\n", text)
            assert name, "a python block begins with the name of its file"
            (made / name[1]).write_text(text)
    return made


@dataclass
class Done:
    """What a command left."""

    code: int
    stdout: str
    stderr: str


@pytest.fixture
def run(folder: Path, server: WarmServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Runs a command line of ours in the reader's folder (in this process, whose server is warm)."""
    monkeypatch.chdir(folder)
    server.warm_up()

    def run(command: str) -> Done:
        words = shlex.split(command)
        assert words[0] in ("scripts/batchlab", "batchlab"), command
        code = main(words[1:])
        return Done(code, *capfd.readouterr())

    return run


def test_the_two_commands_are_there_and_everything_is_a_command_of_ours():
    assert COMMANDS[0] == "scripts/batchlab sweep batch_size=8,32,256"
    assert set(COMMANDS) >= NOT_RUN
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("command", RUN)
def test_the_command_runs(command, run):
    done = run(command)
    # doctor's 1 says that something is wrong with this machine, which is for it to say
    assert done.code in ((0, 1) if command.endswith("doctor") else (0,)), done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def table(text: str) -> list[list[str]]:
    """The cells of the rows that begin with a batch size."""
    return [line.split() for line in text.splitlines() if re.match(r" +\d+  ", line)]


@pytest.mark.parametrize("command", COMMANDS[:2])
def test_the_output_it_shows_is_what_is_printed(command, run):
    shown = next(text for kind, text in BLOCKS if kind == "console" and text.startswith(f"$ {command}\n"))
    printed = run(command).stdout  # the points are there: the table is made from their records
    expected, seen = table(shown), table(printed)
    assert len(expected) == len(seen) == 3
    learnt = slice(-4, -2)  # val loss and val accuracy; speed and memory are the machine's
    for shown_row, row in zip(expected, seen, strict=True):
        assert shown_row[:3] == row[:3]  # batch size, peak rate, steps
        assert [float(x) for x in row[learnt]] == pytest.approx([float(x) for x in shown_row[learnt]], abs=0.02)
        assert (shown_row[-1], row[-1]) == ("completed", "completed")


def test_the_readers_own_model_learnt_something(folder, run):
    run(next(command for command in COMMANDS if "my_net.Net" in command))
    records = [
        json.loads(path.read_text()) for path in (folder / "runs" / "my_net.load-my_net.Net").glob("*/record.json")
    ]
    assert sorted(record["batch_size"] for record in records) == [8, 64]
    assert all(record["final"]["val/accuracy"] > 0.9 for record in records)
