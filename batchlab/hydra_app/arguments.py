"""The words of a command line: our options, Hydra's options, and the overrides, each apart."""

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from batchlab.config import option_names
from batchlab.config.options import GROUPS, RETRIED, SWEEP
from batchlab.errors import BadRequest, did_you_mean

RETRY = SWEEP["retry"].flag
FLAGS = {row.flag: f"{name}=true" for name, row in SWEEP.items() if row.flag and row.type == "bool"}
CONFIG_DIR = ("--config-dir", "-cd")
SHOWING = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion", "-sc", "--version")
# Options of Hydra that would replace what batchlab is; what to use in their place.
REFUSED = {
    ("--experimental-rerun",): "it runs what a pickle says; write the overrides again",
    ("--config-path", "-cp", "--config-name", "-cn"): "use --config-dir DIR to add configs of your own",
    ("--run", "-r", "--multirun", "-m"): "`batchlab train` runs one point, `batchlab sweep` every point of a grid",
}


@dataclass(frozen=True)
class Arguments:
    """What was typed behind the word."""

    options: tuple[str, ...]  # Hydra's, with their values
    overrides: tuple[str, ...]  # those that our options stand for come last
    shows_config: bool  # --cfg
    config_dir: str | None = None  # --config-dir

    @property
    def only_shows(self) -> bool:
        """Whether the user wants to see a config and run nothing."""
        return any(option.partition("=")[0] in SHOWING for option in self.options)


def read_arguments(arguments: Sequence[str]) -> Arguments:
    """Takes a command line apart; its options may stand anywhere. BadRequest for an option that is none."""
    others, ours = _ours([word for word in arguments if word != "--"])
    parser = get_args_parser()
    parser.allow_abbrev = False
    parser.error = _refuse  # type: ignore[method-assign]
    for names, instead in REFUSED.items():
        for word in others:
            if word.partition("=")[0] in names:
                raise BadRequest(f"{word} cannot be: {instead}")
    given = _parsed(parser, others)
    for option, value in (("--resolve", given.resolve), ("--package", given.package)):
        if value and not given.cfg:
            raise BadRequest(f"{option} goes with --cfg job, which shows the config: add it, or leave {option} out")
    # Hydra's own call takes no override behind an option's value, so they are told apart here.
    overrides = list(given.overrides)
    options, left = [], list(overrides)
    for word in others:
        if left and word == left[0]:
            left.pop(0)
        else:
            options.append(word)
    kept = tuple(_without_config_dir(options))
    return Arguments(kept, (*overrides, *ours), shows_config=given.cfg is not None, config_dir=given.config_dir)


def refuse_what_is_for_runs(command: str, overrides: Sequence[str]) -> None:
    """BadRequest where a command that makes no run is told how a sweep is to be conducted."""
    for line in overrides:
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


def _ours(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is not ours of `arguments`, and the overrides that ours stand for."""
    others, overrides, left = [], [], list(arguments)
    while left:
        word = left.pop(0)
        name, equals, value = word.partition("=")
        if name in FLAGS and equals:
            raise BadRequest(f"{word} cannot be: {name} takes no value; write {name}, or leave it out")
        if name in FLAGS:
            overrides.append(FLAGS[name])
        elif name == RETRY:
            if not equals:
                value = left.pop(0) if left and not left[0].startswith("-") and "=" not in left[0] else ""
            overrides.append(f"retry=[{','.join(_statuses(value))}]")
        else:
            others.append(word)
    return others, overrides


def _without_config_dir(options: Sequence[str]) -> Iterator[str]:
    """Hydra would put the folder behind the shipped one, which would then hold over it: it is ours to put in place."""
    left = iter(options)
    for word in left:
        if word in CONFIG_DIR:
            next(left)
        elif word.partition("=")[0] not in CONFIG_DIR:
            yield word


def _statuses(text: str) -> list[str]:
    """`failed,timeout` as a list; BadRequest where it names nothing that can be run again."""
    statuses = [status.strip() for status in text.strip("[]").split(",")]
    if statuses == [""]:
        raise BadRequest(f"{RETRY} needs what to run again: write {RETRY} failed,timeout")
    for status in statuses:
        if status not in RETRIED:
            near = did_you_mean(status, RETRIED)
            raise BadRequest(f"{RETRY} {text} cannot be: it takes {', '.join(RETRIED)}, with commas between{near}")
    return statuses


def _parsed(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    if "--version" in arguments:  # the parser would print it and end
        arguments = [word for word in arguments if word != "--version"]
    return parser.parse_intermixed_args(list(arguments))


def _refuse(message: str) -> NoReturn:
    """One line for what argparse has to say, with what to type instead."""
    unknown = re.match(r"unrecognized arguments: (-+)([^\s=]*)", message)
    if unknown is None:
        raise BadRequest(f"{message}; `batchlab sweep --help` shows what it takes")
    option, name = unknown[1] + unknown[2], unknown[2].replace("-", "_")
    if name.partition(".")[0] in option_names():
        raise BadRequest(f"unknown option {option}: a knob is written without dashes, {name}=...")
    known = [*FLAGS, RETRY, *(o for o in get_args_parser()._option_string_actions if o.startswith("--"))]
    refused = {word for names in REFUSED for word in names}
    # Without the dashes, or every option would be near every other.
    near = did_you_mean(unknown[2], [word.lstrip("-") for word in known if word not in refused]).replace("'", "'--", 1)
    near = near or did_you_mean(name, option_names()).replace("'?", "=...'?")
    raise BadRequest(f"unknown option {option}{near or ': `batchlab sweep --help` shows what there is'}")
