"""argparse as every command uses it: one line for a mistake, and examples below the help."""

import argparse
import re
from typing import NoReturn

from batchlab.errors import BadRequest, did_you_mean

NAMES = {"FILE": "runs.csv", "DIR": "elsewhere"}  # an example of each


class Parser(argparse.ArgumentParser):
    """The parser of one command: its epilogue is printed unchanged, a mistake becomes a `BadRequest`."""

    def __init__(self, command: str, description: str, epilogue: str) -> None:
        super().__init__(
            prog=f"batchlab {command}".strip(),
            description=description,
            epilog=epilogue,
            allow_abbrev=False,  # `--host` must not be taken as a short form
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags that its help shows."""
        shown = [action for action in self._actions if action.help is not argparse.SUPPRESS]
        return tuple(flag for action in shown for flag in action.option_strings if flag.startswith("--"))

    def error(self, message: str) -> NoReturn:
        raise BadRequest(f"{self._reworded(message)}; `{self.prog} --help` shows what it takes")

    def _needed(self, missing: list[str]) -> str:
        positional = [action for action in self._actions if not action.option_strings]
        meanings = [f"{action.metavar}, {action.help}" for action in positional if action.metavar in missing]
        whole = " ".join([self.prog, *(str(action.metavar) for action in positional)])
        return f"{self.prog} needs {' and '.join(meanings)}: write `{whole}`"

    def _example(self, flag: str) -> str:
        action = self._option_string_actions[flag]
        first = next(iter(action.choices or ()), None)
        return str(first or action.default or NAMES.get(str(action.metavar), "..."))

    def _reworded(self, message: str) -> str:
        """argparse's message in the form of ours; one that is not known is kept."""
        if missing := re.fullmatch(r"the following arguments are required: (.*)", message):
            return self._needed(missing[1].split(", "))
        if alone := re.fullmatch(r"argument (?:.*/)?(--[\w-]+): expected one argument", message):
            return f"{alone[1]} needs a value, such as {alone[1]} {self._example(alone[1])}"
        if unknown := re.fullmatch(r"unrecognized arguments: (.*)", message):
            name, _, value = unknown[1].split()[0].partition("=")
            flags = [flag[2:] for flag in self._option_string_actions if flag.startswith("--")]
            flag = name.lstrip("-+").replace("_", "-")
            near = did_you_mean(flag, flags).replace("'", "'--", 1)
            near = f": write --{flag} {value}".rstrip() if flag in flags else near
            return f"{self.prog} does not take {unknown[1]}{near}"
        if wrong := re.fullmatch(
            r"argument (?:.*/)?([\w-]+): invalid (\w+)(?: value)?: '(.*?)'(?: \((.*)\))?", message
        ):
            name, kind, given, choices = wrong.groups()
            allowed = "it must be an integer" if kind == "int" else (choices or "").replace("choose from", "use one of")
            return f"{name} {given} is invalid: {allowed}".replace("'", "")
        return message
