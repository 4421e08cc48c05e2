"""What the helps of `train` and `sweep` have in common: the knobs, and what is Hydra's."""

from batchlab.cli.option_help import knob_rows
from batchlab.cli.output import definitions, say

HYDRA = """\
--config-dir DIR adds configs of your own, which hold over the shipped ones of the same name.
Hydra's options pass through: --cfg job, --info, --package, ... (--hydra-help lists them);
so do its grammar (range, choice, glob), +key=value for keys of data, model, optimizer and instruments,
and hydra/launcher=... for other places to run."""


def asks_for_help(arguments: list[str]) -> bool:
    """Whether the user wants to read and not to run."""
    return "--help" in arguments or "-h" in arguments


def show_help(text: str) -> int:
    """Prints a word's help and the table of the knobs; the exit code."""
    say(f"{text}\n\nknobs (`batchlab config` shows their defaults):\n{definitions(knob_rows())}\n\n{HYDRA}")
    return 0
