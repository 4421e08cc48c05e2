"""`batchlab config`: every knob and group, or the config that a command would use."""

from collections.abc import Iterator

from batchlab.cli.option_help import (
    blocks,
    default_options,
    first_comment,
    groups,
    keys_of,
    knobs,
    read_defaults,
    written,
)
from batchlab.cli.output import LONGEST_WORD, definitions, say
from batchlab.config_folder import config_folder, folders_of_the_user
from batchlab.errors import BadRequest
from batchlab.printable import printable


def main(arguments: list[str]) -> int:
    """Without arguments the knobs, read from the code and from `configs/`; with arguments Hydra composes."""
    if "--markdown" in arguments:
        if len(arguments) > 1:
            raise BadRequest("--markdown is a page of every knob: leave the others out")
        from batchlab.cli.config_page import page

        say(page().rstrip())
        return 0
    if arguments:
        from batchlab.hydra_app import launch

        return launch("train", ["--cfg", "job", *arguments])
    say(describe())
    return 0


def describe() -> str:
    """The knobs in the blocks of `configs/config.yaml`, then the groups and the experiments."""
    known, defaults = knobs(), read_defaults()
    parts = [
        f"Knobs, as in {config_folder() / 'config.yaml'}.",
        "Those with a * are part of what a run is: another value makes another run.",
        "",
    ]
    for block in blocks():
        rows = []
        for name in block:
            knob = known[name]
            takes = f" ({knob.allowed})" if knob.allowed else ""
            mark = "*" if knob.identity else " "
            rows.append((f"{mark} {name}={written(defaults[name])}", knob.meaning + takes))
        parts += [definitions(rows, indent=0, words=LONGEST_WORD), ""]
    for group, options in groups().items():
        if group == "experiment":
            parts.append("experiment=... sets several knobs at once:")
        else:
            marked = f"* {group}" if known[group].identity else f"  {group}"
            parts.append(f"{marked}=... {known[group].meaning}; default {default_options()[group]}:")
        for option, meaning in options.items():
            parts.append(definitions([(option, meaning)], indent=4, words=max(map(len, options))))
            if group != "experiment" and (keys := keys_of(group, option)):
                parts.append(definitions(keys, indent=8, words=max(LONGEST_WORD, *(len(key) for key, _ in keys))))
        parts.append("")
    return "\n".join([*parts, *_of_this_lab()]).rstrip()


def _of_this_lab() -> Iterator[str]:
    """What the folder that the user stands in adds to the groups: `batchlab init`."""
    for folder in folders_of_the_user(None):
        yield f"Of this lab, in {printable(folder)}; they hold over those of the same name above:"
        files = sorted(folder.glob("*/*.yaml"))
        yield definitions([(f"{file.parent.name}={file.stem}", first_comment(file)) for file in files], indent=4)
