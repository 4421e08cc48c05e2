"""`batchlab WORD ARGUMENTS...`: finds the word's module and tells how it ended."""

import errno
import importlib
import os
import shlex
import sys
from collections.abc import Sequence

from batchlab.cli.output import complain, say
from batchlab.errors import BadRequest, BatchlabError, EmptyGrid, StorageError, did_you_mean
from batchlab.printable import printable

WORDS = {
    "init": "a small lab of your own to change: model, data, configs, a test",
    "check": "whether a model and its data can be measured, and how to mend what is wrong",
    "train": "train one point",
    "sweep": "train every point of a grid, each in a process of its own",
    "find": "the largest micro-batch that fits this device, or a limit of memory",
    "report": "every claim about batch size judged by a study, one recommendation, and pictures",
    "list": "the studies on disk, or the points of one",
    "dashboard": "TensorBoard for a study",
    "verify": "whether accumulating gives this model the gradient of the whole batch, and why not",
    "doctor": "what this machine can do, and what is wrong with it",
    "config": "every knob and group, or the config that a command would use",
    "lr-table": "the rate, betas and eps that each rule of lr_scaling gives",
    "compare": "two studies side by side: settings, equal points, claims",
    "export": "the runs of a study, or their measurements, as CSV, Parquet or JSON",
    "completion": "tab completion for bash, zsh or fish",
}
USAGE = """\
usage: batchlab [--help] [--version] WORD [ARGUMENTS...]

How does the batch size affect training, and which one should I use?

options:
  -h, --help  show this help message and exit
  --version   the version, and nothing else"""
EXAMPLES = """\
examples:
  batchlab sweep batch_size=8,32,256
  batchlab train batch_size=64 model=cnn epochs=5
  batchlab list
  batchlab dashboard

`batchlab WORD --help` tells more of each.
exit codes: 0 every point has an answer (completed, oom or diverged); 1 doctor found what prevents a run, check what is
  wrong, or verify that the gradients differ; 2 bad request, nothing was started; 3 some points failed, or find found no
  size; 4 the grid is empty; 74 the disk refused; 130, 143 interrupted"""

# Faults of the place and not of the program: one line says them, a traceback would hide them.
PLACE = {errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line (without the program's name) and returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = dispatch(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader (`| head`) has enough. Python flushes stdout once more as it ends, so it gets another place.
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
        if error.errno not in PLACE:
            raise
        return _ended(error, 1)


def dispatch(arguments: list[str]) -> int:
    """The exit code of the word that `arguments` start with; everything after it is the word's own."""
    if not arguments or arguments[0] not in WORDS:
        return _without_a_word(arguments)
    from batchlab.config.commands import COMMANDS  # what needs no command should not wait for the table of options

    name, *rest = arguments
    command = COMMANDS.get(name)
    if command is not None and {"--help", "-h"} & {*rest}:
        from batchlab.cli.option_help import help_text

        say(help_text(name))
        return 0
    if command is not None and command.launched:
        from batchlab.hydra_app import launch

        return launch(name, rest)
    module = importlib.import_module(f"batchlab.cli.commands.{name.replace('-', '_')}")
    try:
        code: int = module.main(rest)
    except SystemExit as end:  # argparse ends so after --help
        return end.code if isinstance(end.code, int) else 0
    return code


def _without_a_word(arguments: list[str]) -> int:
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
    raise BadRequest(_no_word(first, arguments))


def _no_word(first: str, arguments: list[str]) -> str:
    if "=" in first:
        meant = shlex.join(["batchlab", "sweep", *arguments])
        return f"the word is missing: write `{meant}` for every point of it, or `batchlab train ...` for one"
    if first.startswith("-"):
        return f"unknown option {first}: the word comes first, as in `batchlab sweep {first} ...`"
    near = did_you_mean(first, WORDS) or f": the words are {', '.join(WORDS)}"
    return f"unknown word '{first}'{near}"


def _help() -> str:
    words = "\n".join(f"  {word:<11}{meaning}" for word, meaning in WORDS.items())
    return f"{USAGE}\n\nwords:\n{words}\n\n{EXAMPLES}"


def _ended(text: object, code: int) -> int:
    sys.stdout.flush()
    complain(f"batchlab: {printable(text)}")
    return code


if __name__ == "__main__":
    sys.exit(main())
