"""`batchlab config`: every option and group, or the config that a command would use."""

from collections.abc import Iterator

from batchlab.cli.option_help import (
    blocks,
    default_options,
    described_options,
    first_comment,
    groups,
    keys_of,
    read_defaults,
)
from batchlab.cli.output import LONGEST_NAME, definitions, say
from batchlab.config.values import as_override
from batchlab.config_folder import config_folder, folders_of_the_user
from batchlab.errors import BadRequest
from batchlab.printable import printable


def main(arguments: list[str]) -> int:
    """Without arguments the options, read from the code and `configs/`; with arguments the composed config."""
    if "--markdown" in arguments:
        if len(arguments) > 1:
            raise BadRequest("--markdown prints the page of all options: leave out the other arguments")
        from batchlab.cli.config_page import page

        say(page().rstrip())
        return 0
    if arguments:
        from batchlab.hydra_app import launch

        return launch("train", ["--cfg", "job", *arguments])
    say(describe())
    return 0


def describe() -> str:
    """The options in the blocks of `configs/config.yaml`, then the groups and the experiments."""
    known, defaults = described_options(), read_defaults()
    parts = [
        f"Options and their defaults, from {config_folder() / 'config.yaml'}.",
        "Those with a * identify a run: another value makes another run.",
        "",
    ]
    for block in blocks():
        rows = []
        for name in block:
            described = known[name]
            takes = f" ({described.allowed})" if described.allowed else ""
            mark = "*" if described.identity else " "
            rows.append((f"{mark} {name}={as_override(defaults[name])}", described.meaning + takes))
        parts += [definitions(rows, indent=0, column=LONGEST_NAME), ""]
    for group, options in groups().items():
        if group == "experiment":
            parts.append("experiment=... sets several options at once:")
        else:
            marked = f"* {group}" if known[group].identity else f"  {group}"
            parts.append(f"{marked}=... {known[group].meaning}; default {default_options()[group]}:")
        for option, meaning in options.items():
            parts.append(definitions([(option, meaning)], indent=4, column=max(map(len, options))))
            if group != "experiment" and (keys := keys_of(group, option)):
                parts.append(definitions(keys, indent=8, column=max(LONGEST_NAME, *(len(key) for key, _ in keys))))
        parts.append("")
    return "\n".join([*parts, *_of_this_lab()]).rstrip()


def _of_this_lab() -> Iterator[str]:
    """What the current folder adds to the groups, if it is a lab of `batchlab init`."""
    for folder in folders_of_the_user(None):
        yield f"Configs of this lab, in {printable(folder)}; they take precedence over those of the same name above:"
        files = sorted(folder.glob("*/*.yaml"))
        yield definitions([(f"{file.parent.name}={file.stem}", first_comment(file)) for file in files], indent=4)
