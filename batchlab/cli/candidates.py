"""Completions of a command line: commands, flags, options, and the values of options and config groups."""

import importlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from batchlab.cli import main as front
from batchlab.cli.option_help import default_options
from batchlab.cli.studies import RUNS_DIR
from batchlab.config.commands import COMMANDS
from batchlab.config.options import OPTIONS, RETRIED, WITH_TARGETS, option_names
from batchlab.config_folder import LAB_DEFAULTS, config_folder, folders_of_the_user
from batchlab.errors import BadRequest
from batchlab.recording.run_folder import studies
from batchlab.records.quantities import VALIDATION

OF_STUDIES = ("list", "report", "dashboard", "compare", "export")
TARGET = {"target.metric": tuple(metric.name for metric in VALIDATION if not metric.is_family), "target.value": ()}
NEXT = " "  # after a complete argument: the shell continues with the next one


def candidates(line: str) -> list[str]:
    """The completions of the last argument of `line` (up to the cursor); none where it is the name of a file."""
    typed = line.split()
    current = typed.pop() if typed and not line[-1].isspace() else ""
    if len(typed) < 1:
        return []
    if len(typed) == 1:
        return _beginning(current, (name + NEXT for name in (*front.ALL_COMMANDS, "--help", "--version")))
    command, arguments = typed[1], typed[2:]
    if command not in front.ALL_COMMANDS or arguments[-1:] == ["--config-dir"]:
        return []
    flags = _flags(command)
    if arguments[-1:] == ["--retry"] and "--retry" in flags:
        return _beginning(current, RETRIED)
    if current.startswith("-"):
        return _beginning(current, (flag + NEXT for flag in flags))
    if command in COMMANDS:
        return _options(command, current, arguments)
    if command in OF_STUDIES:
        return _beginning(current, (folder.name + NEXT for folder in studies(Path(RUNS_DIR))))
    return _beginning(current, ("bash", "zsh", "fish")) if command == "completion" else []


def _beginning(current: str, offered: Iterable[str]) -> list[str]:
    return sorted({text for text in offered if text.startswith(current)})


def _flags(command: str) -> tuple[str, ...]:
    if command in COMMANDS:
        return COMMANDS[command].flags
    flags: tuple[str, ...] = importlib.import_module(front.module_of(command)).parser().flags
    return flags


def _options(command: str, current: str, arguments: Sequence[str]) -> list[str]:
    plus, typed = re.fullmatch(r"([+~]*)(.*)", current, re.DOTALL).groups()  # type: ignore[union-attr]
    folders = [*_own(arguments), config_folder()]
    options = _groups(folders)
    key, equals, value = typed.partition("=")
    takes = COMMANDS[command].takes_option
    if equals and not takes(key):
        return []
    if equals:
        given, comma, last = value.rpartition(",")
        return [f"{plus}{key}={given}{comma}{found}" for found in _beginning(last, _values(key, options))]
    taken = [name for name in (*option_names(), "experiment") if takes(name)]
    known = [f"{name}=" for name in taken if name not in options and name != "target"]
    known += [f"{name}=" for name in COMMANDS[command].settings if not plus]
    known += [f"{group}=" for group in options if not plus or group == "experiment"]
    known += [f"{group}." for group in options] + [f"{name}=" for name in TARGET]
    known += [f"{name}._target_=" for name in WITH_TARGETS if name not in options]
    group = key.partition(".")[0]
    if "." in key and group in options:
        known = [f"{group}.{name}=" for name in _keys(group, _chosen(group, arguments, folders), folders)]
    return [f"{plus}{found}" for found in _beginning(typed, known)]


def _own(arguments: Sequence[str]) -> list[Path]:
    """The folders of the user's own configs: that of `--config-dir`, and that of the current lab."""
    named = None
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if before == "--config-dir":
            named = argument
        elif argument.startswith("--config-dir="):
            named = argument.partition("=")[2]
    try:
        return folders_of_the_user(named)
    except BadRequest:  # the command itself will report it
        return []


def _groups(folders: Sequence[Path]) -> dict[str, set[str]]:
    """The options of each group, over all folders."""
    found: dict[str, set[str]] = {}
    for folder in folders:
        for file in folder.glob("*/**/*.yaml"):
            group, *option = file.relative_to(folder).with_suffix("").parts
            found.setdefault(group, set()).add("/".join(option))
    return found


def _values(key: str, options: dict[str, set[str]]) -> Iterable[str]:
    if key in options:
        return (option for option in options[key] if option != "own")
    option = OPTIONS.get(key)
    if option is None:
        return TARGET.get(key, ())
    if option.type == "bool":
        return ("true", "false")
    return () if option.items else option.choices or filter(None, option.such_as.split(","))


def _chosen(group: str, arguments: Sequence[str], folders: Sequence[Path]) -> str | None:
    """The option of a group that the command line, the lab or batchlab chooses."""
    typed = [argument.partition("=")[2] for argument in arguments if argument.startswith(f"{group}=")]
    if typed:
        return typed[-1].partition(",")[0]
    for folder in folders[:-1]:
        for entry in _read(folder / LAB_DEFAULTS).get("defaults") or ():
            if isinstance(entry, dict) and f"override /{group}" in entry:
                return str(entry[f"override /{group}"])
    return default_options().get(group)


def _keys(group: str, option: str | None, folders: Sequence[Path]) -> list[str]:
    """The keys of a group's option, from the first folder that has it."""
    for folder in folders:
        if option is not None and (folder / group / f"{option}.yaml").is_file():
            return [key for key in _read(folder / group / f"{option}.yaml") if key not in ("_target_", "defaults")]
    return []


def _read(file: Path) -> dict[str, Any]:
    """A config file as plain values; empty where it cannot be read, which the command itself will report."""
    import yaml

    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return values if isinstance(values, dict) else {}
