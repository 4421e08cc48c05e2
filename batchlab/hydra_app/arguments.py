"""The arguments of a command line: our options, Hydra's options, and the overrides, each apart."""

import argparse
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from batchlab.config import option_names
from batchlab.config.commands import COMMANDS
from batchlab.config.options import GROUPS, RETRIED, SWEEP
from batchlab.errors import BadRequest, did_you_mean

RETRY = SWEEP["retry"].flag
NOTHING_TO_RETRY = f"{RETRY} needs what to run again: write {RETRY} failed,timeout"
FLAGS = {row.flag: f"{name}=true" for name, row in SWEEP.items() if row.flag and row.type == "bool"}
# Options of Hydra that would replace what batchlab is; what to use in their place.
REFUSED = {
    ("--experimental-rerun",): "it runs what a pickle says; write the overrides again",
    ("--config-path", "-cp", "--config-name", "-cn"): "use --config-dir DIR to add configs of your own",
    ("--run", "-r", "--multirun", "-m"): "`batchlab train` runs one point, `batchlab sweep` every point of a grid",
}


@dataclass(frozen=True)
class Arguments:
    """What was typed behind the command."""

    overrides: tuple[str, ...]  # those that our options stand for come last
    hydra: argparse.Namespace  # its options, as its parser reads them
    config_dir: str | None = None  # --config-dir

    @property
    def only_shows(self) -> bool:
        """Whether the user wants to see a config and run nothing."""
        given = self.hydra
        return bool(given.cfg or given.info or given.hydra_help or given.shell_completion)


def read_arguments(arguments: Sequence[str]) -> Arguments:
    """Takes a command line apart; its options may stand anywhere. BadRequest for an option that is none."""
    for word in arguments:
        for names, instead in REFUSED.items():
            if word.partition("=")[0] in names:
                raise BadRequest(f"{word} cannot be: {instead}")
    given = _parser().parse_intermixed_args([word for word in arguments if word != "--"])
    for option, value in (("--resolve", given.resolve), ("--package", given.package)):
        if value and not given.cfg:
            raise BadRequest(f"{option} goes with --cfg job, which shows the config: add it, or leave {option} out")
    config_dir, given.config_dir = given.config_dir, None  # Hydra would put it behind the shipped one
    return Arguments((*given.overrides, *given.ours), given, config_dir)


def refuse_what_is_for_runs(command: str, overrides: Sequence[str]) -> None:
    """BadRequest where a command that makes no run is told how a sweep is to be conducted."""
    for line in () if COMMANDS[command].makes_runs else overrides:
        name = line.partition("=")[0].lstrip("+~")
        if name in SWEEP:
            raise BadRequest(f"{name} is for runs, and `batchlab {command}` makes none: leave it out")


def to_continue(arguments: Sequence[str]) -> list[str]:
    """`arguments` as they continue a sweep that was interrupted: forced once more, it would start from nothing.

    What a forced sweep was allowed to mix, its continuation is too.
    """
    left = [word for word in arguments if not re.match(r"(--force$|\+{0,2}force=)", word)]
    return left if len(left) == len(arguments) else [*left, "accept_changed=true"]


def own_targets(overrides: Sequence[str]) -> list[str]:
    """`overrides` with the group `own` chosen wherever a `_target_` is named without choosing a group.

    So no key of a built-in model leaks into the user's call; further `model.key=value` are then accepted.
    """
    rewritten = list(overrides)
    for group in GROUPS:
        keys = [override.partition("=")[0] for override in rewritten]
        names_target = f"{group}._target_" in keys
        if names_target and group not in keys:
            rewritten.insert(0, f"{group}=own")
        if names_target or f"{group}=own" in rewritten:
            rewritten = [f"++{o}" if o.startswith(f"{group}.") and "=" in o else o for o in rewritten]
    return rewritten


def _parser() -> argparse.ArgumentParser:
    """Hydra's own, with our options; those leave the overrides that they stand for in `ours`."""
    parser = get_args_parser()
    parser.allow_abbrev = False
    parser.error = functools.partial(_refuse, parser)  # type: ignore[method-assign]
    for flag, override in FLAGS.items():
        parser.add_argument(flag, dest="ours", action="append_const", const=override, default=[])
    parser.add_argument(RETRY, dest="ours", action="append", type=_retried)
    return parser


def _retried(text: str) -> str:
    """The override for `failed,timeout`; BadRequest where it names nothing that can be run again."""
    statuses = [status.strip() for status in text.strip("[]").split(",")]
    if statuses == [""] or "=" in text:
        raise BadRequest(NOTHING_TO_RETRY)
    for status in statuses:
        if status not in RETRIED:
            near = did_you_mean(status, RETRIED)
            raise BadRequest(f"{RETRY} {text} cannot be: it takes {', '.join(RETRIED)}, with commas between{near}")
    return f"retry=[{','.join(statuses)}]"


def _refuse(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    """One line for what argparse has to say, with what to type instead."""
    if message == f"argument {RETRY}: expected one argument":
        raise BadRequest(NOTHING_TO_RETRY)
    if given := re.fullmatch(r"argument (?:.*/)?(--[\w-]+)(?:/.*)?: ignored explicit argument '(.*)'", message):
        flag, value = given.groups()
        raise BadRequest(f"{flag}={value} cannot be: {flag} takes no value; write {flag}, or leave it out")
    unknown = re.match(r"unrecognized arguments: (-+)([^\s=]*)", message)
    if unknown is None:
        raise BadRequest(f"{message}; `batchlab sweep --help` shows what it takes")
    option, name = unknown[1] + unknown[2], unknown[2].replace("-", "_")
    if name.partition(".")[0] in option_names():
        raise BadRequest(f"unknown option {option}: a knob is written without dashes, {name}=...")
    refused = {word for names in REFUSED for word in names}
    known = [o for o in parser._option_string_actions if o.startswith("--") and o not in refused]
    # Without the dashes, or every option would be near every other.
    near = did_you_mean(unknown[2], [word.lstrip("-") for word in known]).replace("'", "'--", 1)
    near = near or did_you_mean(name, option_names()).replace("'?", "=...'?")
    raise BadRequest(f"unknown option {option}{near or ': `batchlab sweep --help` shows what there is'}")
