"""`batchlab COMMAND ARGUMENTS...`: runs the module of the command and returns its exit code."""

import errno
import importlib
import os
import sys
from collections.abc import Sequence

from batchlab.cli.output import complain, say
from batchlab.errors import BadRequest, BatchlabError, EmptyGrid, StorageError, did_you_mean
from batchlab.printable import command_line, printable

ALL_COMMANDS = {
    "init": "make a small lab to start from: model, data, configs, a test",
    "check": "test whether a model and its data can be measured, and say how to fix what is wrong",
    "train": "train one point",
    "sweep": "train every point of a grid, each in its own process",
    "find": "find the largest micro-batch that fits on this device, or within a memory limit",
    "report": "judge the claims about batch size by a study; recommendation and figures",
    "list": "list the studies on disk, or the points of one",
    "dashboard": "show a study in TensorBoard",
    "verify": "test whether accumulating gives the gradient of the whole batch, and if not, why",
    "doctor": "show what this machine can do, and what is wrong with it",
    "config": "show every option and group, or the config that a command would use",
    "lr-table": "show the learning rate, betas and eps that each rule of lr_scaling gives",
    "compare": "show two studies side by side: settings, equal points, claims",
    "export": "write the runs of a study, or their measurements, as CSV, Parquet or JSON",
    "completion": "print the tab completion for bash, zsh or fish",
}
USAGE = """\
usage: batchlab [--help] [--version] COMMAND [ARGUMENTS...]

How does the batch size affect training, and which one should I use?

options:
  -h, --help  show this help message and exit
  --version   show the version and exit"""
EXAMPLES = """\
examples:
  batchlab sweep batch_size=8,32,256
  batchlab train batch_size=64 model=cnn epochs=5
  batchlab list
  batchlab dashboard

`batchlab COMMAND --help` describes each command.
exit codes: 0 every point has a final result (completed, oom or diverged); 1 doctor, check or verify found a problem;
  2 bad request, nothing was started; 3 some points failed, or find found no size; 4 the grid is empty; 74 the disk
  cannot be written; 130, 143 interrupted"""

# Errors of the environment, not of the program: they get one line without a traceback.
ENVIRONMENT = {errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line (without the program's name) and returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = dispatch(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader (`| head`) has stopped. Python flushes stdout again at exit, so it is redirected.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except KeyboardInterrupt:
        return _ended("interrupted", 130)
    except EmptyGrid as error:
        return _ended(error, 4)
    except BadRequest as error:
        return _ended(error, 2)
    except StorageError as error:
        return _ended(error, 74)
    except BatchlabError as error:
        return _ended(error, 1)
    except OSError as error:
        if error.errno not in ENVIRONMENT:
            raise
        return _ended(error, 1)


def dispatch(arguments: list[str]) -> int:
    """Runs the command that `arguments` start with, with the arguments after it; returns its exit code."""
    if not arguments or arguments[0] not in ALL_COMMANDS:
        return _without_command(arguments)
    from batchlab.config.commands import COMMANDS  # not at the top: `--help` needs no table of options

    name, *rest = arguments
    command = COMMANDS.get(name)
    if command is not None and {"--help", "-h"} & {*rest}:
        from batchlab.cli.option_help import help_text

        say(help_text(name))
        return 0
    if command is not None and command.launched:
        from batchlab.hydra_app import launch

        return launch(name, rest)
    module = importlib.import_module(module_of(name))
    try:
        code: int = module.main(rest)
    except SystemExit as end:  # by argparse after --help
        return end.code if isinstance(end.code, int) else 0
    return code


def module_of(command: str) -> str:
    """The module of a command that Hydra does not launch."""
    return f"batchlab.cli.commands.{command.replace('-', '_')}"


def _without_command(arguments: list[str]) -> int:
    if not arguments:
        complain(_help())
        return 2
    first = arguments[0]
    if first in ("-h", "--help"):
        say(_help())
        return 0
    if first == "--version":
        from batchlab import __version__

        say(f"batchlab {__version__}")
        return 0
    raise BadRequest(_unknown_command(first, arguments))


def _unknown_command(first: str, arguments: list[str]) -> str:
    if "=" in first:
        meant = command_line(["batchlab", "sweep", *arguments])
        return f"the command is missing: write `{meant}` for every point, or `batchlab train ...` for one"
    if first.startswith("-"):
        return f"unknown flag {first}: the command comes first, as in `batchlab sweep {first} ...`"
    near = did_you_mean(first, ALL_COMMANDS) or f": the commands are {', '.join(ALL_COMMANDS)}"
    return f"unknown command '{first}'{near}"


def _help() -> str:
    widest = max(map(len, ALL_COMMANDS))
    commands = "\n".join(f"  {name:<{widest}} {meaning}" for name, meaning in ALL_COMMANDS.items())
    return f"{USAGE}\n\ncommands:\n{commands}\n\n{EXAMPLES}"


def _ended(text: object, code: int) -> int:
    sys.stdout.flush()
    complain(f"batchlab: {printable(text)}")
    return code


if __name__ == "__main__":
    sys.exit(main())
