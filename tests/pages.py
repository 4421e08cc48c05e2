"""Runs the commands of Markdown pages in their order, after writing the files that the pages show.

A `console` block holds commands after `$ `, and below each its output. Another block whose first line is a comment with
a path is a file that the reader writes. An HTML comment directly above a block may say how it is run:
`<!-- slow: why -->` for `-m slow`, `<!-- not run: why -->` if another test or nothing runs it. A file that must begin
differently has `<!-- file: path -->` above it.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from batchlab.cli.main import main
from batchlab.sweep.processes.server import WarmServer

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(?:^<!-- (slow|not run|file): ([^\n]*?) -->\n)?^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w./-]+\.\w+)\n")


@dataclass(frozen=True)
class Command:
    """A command of a page."""

    page: str
    line: str
    shown: tuple[str, ...]  # its output on the page, in part
    when: str  # "", "slow" or "not run"
    files: Mapping[str, str]  # the files of the page so far, by path

    @property
    def refused(self) -> str:
        """The one-line error message that the page shows for a bad request, if any."""
        return next((line for line in self.shown if line.startswith("batchlab: ")), "")


def read_page(path: Path) -> list[Command]:
    """The commands of a page, in order."""
    commands: list[Command] = []
    files: dict[str, str] = {}
    for when, name, kind, text in BLOCK.findall(path.read_text(encoding="utf-8")):
        if kind == "console":
            assert text.startswith("$ "), f"{path.name}: a block of console begins with a command: {text[:40]!r}"
            for typed in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                line, *shown = typed.replace("\\\n", "").rstrip("\n").split("\n")
                commands.append(Command(path.name, " ".join(line.split()), tuple(shown), when, dict(files)))
        elif when == "file":
            files[name] = text
        elif (named := FILE.match(text)) and when != "not run":
            files[named[1]] = text
    return commands


def to_run(commands: Sequence[Command], *, slow: Sequence[str] = ()) -> list[Any]:
    """Parameters of a test; commands are marked slow if the page says so, or if they contain one of `slow`."""
    return [
        pytest.param(
            command,
            id=f"{command.page}: {command.line}"[:80],
            marks=[pytest.mark.slow] if command.when == "slow" or any(word in command.line for word in slow) else [],
        )
        for command in commands
        if command.when != "not run"
    ]


@dataclass
class Done:
    """The result of a command."""

    code: int
    stdout: str
    stderr: str


class Reader:
    """Runs commands in a folder; batchlab's own run in this process, with its warm server."""

    def __init__(self, home: Path, server: WarmServer) -> None:
        self.home, self.folder, self.server = home, home, server
        self.written: dict[str, str] = {}
        self.typed: list[Command] = []

    def types_as_far_as(
        self, command: Command, page: Sequence[Command], capfd: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch
    ) -> Done:
        """Runs `command` after earlier commands of its page that it may depend on (with `-m slow` all of them)."""
        for earlier in page[: page.index(command)]:
            if not earlier.when and earlier not in self.typed:
                self.types(earlier, capfd, patch)
        return self.types(command, capfd, patch)

    def types(self, command: Command, capfd: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> Done:
        self.typed.append(command)
        for name, text in command.files.items():
            if self.written.get(name) != text:
                (self.home / name).parent.mkdir(parents=True, exist_ok=True)
                (self.home / name).write_text(text, encoding="utf-8")
                self.written[name] = text
        words = shlex.split(command.line)
        if words[0] == "cd":
            self.folder = (self.folder / words[1]).resolve(strict=True)
            return Done(0, "", "")
        patch.chdir(self.folder)
        if words[0] == "python":
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            done = subprocess.run(
                [sys.executable, *words[1:]], capture_output=True, text=True, check=False, env=environment
            )
            return Done(done.returncode, done.stdout, done.stderr)
        assert words[0] in ("scripts/batchlab", "batchlab"), command.line
        self.server.warm_up()
        capfd.readouterr()
        return Done(main(words[1:]), *capfd.readouterr())


def shape(line: str) -> str:
    """A line without its numbers and spacing, which depend on the machine."""
    return " ".join(re.sub(r"[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?", "#", line).split())


def links(text: str) -> list[str]:
    """The targets of a page's links and pictures, except URLs."""
    return [to for to in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in to]
