"""What the help and the completion of a command offer is what its own check of the arguments accepts."""

import argparse
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from batchlab import hydra_app
from batchlab.cli.candidates import candidates
from batchlab.cli.main import ALL_COMMANDS, main
from batchlab.cli.parser import Parser
from batchlab.config import option_names
from batchlab.config.commands import COMMANDS
from batchlab.hydra_app import front

NEEDED = {"compare": "a b", "completion": "bash", "export": "a", "init": "a", "report": "a"}
WITH_FLAG = {
    "--retry": "failed",
    "--cfg": "job",
    "--package": "optimizer --cfg job",
    "--resolve": "--cfg job",
    "--config-dir": ".",
    "--port": "7000",
    "--format": "json",
    "--output": "-",
    "--from": "torch",
    "--out": "a",
    "--runs-dir": "a",
}
VALUES = {"memory_limit": "9MiB", "at_most": "9"}  # of the settings of `find`, which are read while they are checked
SETTINGS = {"find": set(VALUES)}
POINTLESS = {"config": {"--cfg"}}  # accepted, but `config` is `train --cfg job`


class Accepted(Exception):  # noqa: N818 - not an error
    """Raised in place of what a command does after the check of its arguments."""


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(*_: Any, **__: Any) -> NoReturn:
        raise Accepted

    parse = Parser.parse_args

    def parse_and_end(self: Parser, arguments: Sequence[str]) -> argparse.Namespace:
        parse(self, arguments)
        raise Accepted

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(front, "_run_hydra", end)
    monkeypatch.setattr(front, "_composed", end)
    monkeypatch.setattr(hydra_app, "grid_composer", end)
    monkeypatch.setattr(Parser, "parse_args", parse_and_end)


def accepts(command: str, *arguments: str) -> bool:
    try:
        code = main([command, *arguments])
    except Accepted:
        return True
    assert code in (0, 2)
    return code == 0


def accepts_flag(command: str, flag: str) -> bool:
    return accepts(command, *("" if flag == "--markdown" else NEEDED.get(command, "")).split(), flag, *_with(flag))


def _with(flag: str) -> list[str]:
    return WITH_FLAG.get(flag, "").split()


def flags_completed(command: str) -> set[str]:
    return {found.strip() for found in candidates(f"batchlab {command} -")}


@functools.cache
def every_flag() -> set[str]:
    return {flag for command in ALL_COMMANDS for flag in flags_completed(command)}


@pytest.fixture
def the_help(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    with monkeypatch.context() as patch:
        patch.setattr(Parser, "parse_args", argparse.ArgumentParser.parse_args)
        assert main([command, "--help"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", ALL_COMMANDS)
def test_the_flags_that_are_offered_are_those_that_are_accepted(command: str, the_help: str) -> None:
    accepted = {flag for flag in every_flag() - {"--help"} if accepts_flag(command, flag)} | {"--help"}

    assert flags_completed(command) == accepted - POINTLESS.get(command, set())
    text = the_help if command in COMMANDS else the_help.partition("examples:")[0]  # `completion` explains another's
    named = set(re.findall(r"(?<![\w-])--[a-z]+(?:-[a-z]+)*", text))
    assert named | {"--help"} == flags_completed(command)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_options_that_are_offered_are_those_that_are_accepted(command: str, the_help: str) -> None:
    everything = {*option_names(), "experiment"} | SETTINGS.get(command, set())
    accepted = {name for name in everything if accepts(command, f"{name}={VALUES.get(name, 'x')}")}

    completed = {found.strip() for found in candidates(f"batchlab {command} ") if found.endswith("=")}
    assert {re.split("[.=]", found)[0] for found in completed} == accepted
    listed = the_help.partition("options (`batchlab config`")[2].partition("\n\n")[0]
    settings = set(re.findall(r"^  (\w+)=[A-Z]+  ", the_help, re.MULTILINE))
    assert set(re.findall(r"^  (\w+)(?:  |$)", listed, re.MULTILINE)) | settings == accepted


def test_the_commands_differ_in_what_they_take() -> None:
    assert {"--dry-run", "--cfg"} <= flags_completed("sweep") - flags_completed("lr-table")
    assert accepts("sweep", "jobs=2")
    assert not any(accepts("check", option) for option in ("jobs=2", "--force", "published=[]"))
    assert accepts("check", "grids=[]")  # the file of an experiment has grids
    assert not accepts("lr-table", "+lr_scaling=none")
    assert not accepts("find", "batch_size=8")


def test_the_values_of_an_option_that_is_refused_are_not_completed() -> None:
    assert candidates("batchlab train lr_scaling=li") == ["lr_scaling=linear"]
    assert candidates("batchlab lr-table lr_scaling=li") == []
    assert candidates("batchlab lr-table --retry fa") == []
