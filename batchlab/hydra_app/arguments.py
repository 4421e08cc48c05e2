"""Separates the arguments of a command line: our flags, Hydra's options, and the overrides."""

import argparse
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from batchlab.config import option_names
from batchlab.config.commands import COMMANDS
from batchlab.config.options import GROUPS, RETRIED, SWEEP, WITH_TARGETS
from batchlab.errors import BadRequest, did_you_mean

RETRY = SWEEP["retry"].flag
NOTHING_TO_RETRY = f"{RETRY} needs the statuses to run again: write {RETRY} failed,timeout"
FLAGS = {row.flag: f"{name}=true" for name, row in SWEEP.items() if row.flag and row.type == "bool"}
NEEDED = {"--config-dir": "my-configs", "--package": "model"}  # an example of the value of a flag
# Options of Hydra that would replace parts of batchlab, and what to use instead.
REFUSED = {
    ("--experimental-rerun",): "it runs code from a pickle file; type the overrides again",
    ("--config-path", "-cp", "--config-name", "-cn"): "use --config-dir DIR to add configs of your own",
    ("--run", "-r", "--multirun", "-m"): "`batchlab train` runs one point, `batchlab sweep` every point of a grid",
}


@dataclass(frozen=True)
class Arguments:
    """What was typed after the command."""

    overrides: tuple[str, ...]  # those that our flags set come last
    hydra: argparse.Namespace  # Hydra's options, as its parser reads them
    config_dir: str | None = None  # --config-dir

    @property
    def only_shows(self) -> bool:
        """Whether the user wants to see a config and run nothing."""
        given = self.hydra
        return bool(given.cfg or given.info or given.hydra_help or given.shell_completion)


def read_arguments(arguments: Sequence[str]) -> Arguments:
    """Splits a command line, whose options may be anywhere. BadRequest for an unknown option."""
    for argument in arguments:
        for names, instead in REFUSED.items():
            if argument.partition("=")[0] in names:
                raise BadRequest(f"{argument} is invalid: {instead}")
    given = _parser().parse_intermixed_args([argument for argument in arguments if argument != "--"])
    for option, value in (("--resolve", given.resolve), ("--package", given.package)):
        if value and not given.cfg:
            raise BadRequest(f"{option} needs --cfg job, which shows the config: add it, or leave out {option}")
    if given.cfg and given.info:
        raise BadRequest(
            "--info cannot be given with --cfg, which `batchlab config` adds: give one of them to `batchlab train`"
        )
    config_dir, given.config_dir = given.config_dir, None  # Hydra would search it after the shipped one
    return Arguments((*given.overrides, *given.ours), given, config_dir)


def refuse_options(command: str, overrides: Sequence[str]) -> None:
    """BadRequest for an option that the command does not take."""
    for line in overrides:
        name = line.partition("=")[0].lstrip("+~")
        if why := COMMANDS[command].refuses.get(name):
            raise BadRequest(f"{line} is invalid: {why}")
        if not COMMANDS[command].takes_option(name):
            raise BadRequest(f"{name} is for runs, and `batchlab {command}` makes none: leave it out")


def to_continue(arguments: Sequence[str]) -> list[str]:
    """The arguments that continue an interrupted sweep: without `--force`, which would start it again from nothing.

    A forced sweep may mix code, data and devices, so its continuation may too.
    """
    left = [argument for argument in arguments if not re.match(r"(--force$|\+{0,2}force=)", argument)]
    return left if len(left) == len(arguments) else [*left, "accept_changed=true"]


def own_targets(overrides: Sequence[str]) -> list[str]:
    """`overrides` with the group `own` wherever a `_target_` is given without a choice of group.

    So no key of a built-in model is passed to the user's class; any `model.key=value` is then accepted.
    """
    rewritten = list(overrides)
    for group in WITH_TARGETS:
        keys = [override.partition("=")[0].lstrip("+") for override in rewritten]
        names_target = f"{group}._target_" in keys
        if names_target and group in GROUPS and group not in keys:
            rewritten.insert(0, f"{group}=own")
        if names_target or f"{group}=own" in rewritten:
            rewritten = [_added(o) if o.lstrip("+").startswith(f"{group}.") and "=" in o else o for o in rewritten]
    return rewritten


def _added(override: str) -> str:
    return f"++{override.lstrip('+')}"


def _parser() -> argparse.ArgumentParser:
    """Hydra's parser with our flags, which put the overrides that they set into `ours`."""
    parser = get_args_parser()
    parser.allow_abbrev = False
    parser.error = functools.partial(_refuse, parser)  # type: ignore[method-assign]
    for flag, override in FLAGS.items():
        parser.add_argument(flag, dest="ours", action="append_const", const=override, default=[])
    parser.add_argument(RETRY, dest="ours", action="append", type=_retried)
    return parser


def _retried(text: str) -> str:
    """The override for `failed,timeout`; BadRequest for a status that cannot be run again."""
    statuses = [status.strip() for status in text.strip("[]").split(",")]
    if statuses == [""] or "=" in text:
        raise BadRequest(NOTHING_TO_RETRY)
    for status in statuses:
        if status not in RETRIED:
            near = did_you_mean(status, RETRIED)
            raise BadRequest(f"{RETRY} {text} is invalid: it takes {', '.join(RETRIED)}, separated by commas{near}")
    return f"retry=[{','.join(statuses)}]"


def _refuse(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    """Turns a message of argparse into one line that says what to type instead."""
    if message == f"argument {RETRY}: expected one argument":
        raise BadRequest(NOTHING_TO_RETRY)
    if alone := re.fullmatch(r"argument (--[\w-]+)(?:/.*)?: expected one argument", message):
        raise BadRequest(f"{alone[1]} needs a value, such as {alone[1]} {NEEDED.get(alone[1], '...')}")
    if chosen := re.fullmatch(r"argument (--[\w-]+)(?:/.*)?: invalid choice: '(.*?)' \(choose from (.*)\)", message):
        flag, value, choices = chosen.groups()
        raise BadRequest(f"{flag} {value} is invalid: use one of {choices.replace(chr(39), '')}")
    if given := re.fullmatch(r"argument (?:.*/)?(--[\w-]+)(?:/.*)?: ignored explicit argument '(.*)'", message):
        flag, value = given.groups()
        raise BadRequest(f"{flag}={value} is invalid: {flag} takes no value; write {flag} alone, or leave it out")
    unknown = re.match(r"unrecognized arguments: (-+)([^\s=]*)", message)
    if unknown is None:
        raise BadRequest(f"{message}; `batchlab sweep --help` shows what it takes")
    option, name = unknown[1] + unknown[2], unknown[2].replace("-", "_")
    if name.partition(".")[0] in option_names():
        raise BadRequest(f"unknown flag {option}: options are written without dashes, {name}=...")
    refused = {flag for names in REFUSED for flag in names}
    known = [o for o in parser._option_string_actions if o.startswith("--") and o not in refused]
    # Without the dashes, which would make all flags similar.
    near = did_you_mean(unknown[2], [flag.lstrip("-") for flag in known]).replace("'", "'--", 1)
    near = near or did_you_mean(name, option_names()).replace("'?", "=...'?")
    raise BadRequest(f"unknown flag {option}{near or ': `batchlab COMMAND --help` lists the flags'}")
