"""The options as a page of Markdown, `docs/configuration.md`: made from their table and `configs/`, never by hand."""

import re
from collections.abc import Iterable, Iterator

import yaml

from batchlab.cli.option_help import blocks, default_options, described_options, groups, read_defaults
from batchlab.config.options import OPTIONS, RUN, STUDY, SWEEP
from batchlab.config.values import as_override, flattened
from batchlab.config_folder import config_folder

COMMAND = "batchlab config --markdown"
HOW = """\
An option is written `OPTION=VALUE`; several values, separated by commas, are swept: `batch_size=8,32 seed=0,1`.
A group is chosen by the name of a file, `model=cnn`, and its keys are written after a dot, `model.width=32`.
`batchlab config OPTION=VALUE ...` shows the config that a command would use.
A file of your own, `my_configs/experiment/night.yaml`, is used by `--config-dir my_configs experiment=night`."""
CHANGES = """\
The last column says what it changes: *weights* (the trained model), *speed*, *memory*, *measurements* (which are made),
*values* (their numbers), *parts* (whether model, data and optimizer fit each other).
Two points are compared in a quantity only if they differ in no other option that changes it."""
NO_NEW_RUN = """\
Another value of these makes no new run: the trained weights stay the same.
Some change speed and memory."""
_KEY = re.compile(r"( *)([\w.]+):(.*)")


def page() -> str:
    """The whole page; a test compares it with the file in `docs/`."""
    return "\n".join(_lines()).rstrip() + "\n"


def _lines() -> Iterator[str]:
    yield from ("# Configuration", "", f"This page is the output of `{COMMAND}`.", "", HOW, "")
    yield from ("## What identifies a run", "", "Another value of one of these makes another run, in its own folder.")
    yield from (*CHANGES.splitlines(), "")
    yield from (*_rows(name for name, row in RUN.items() if row.is_identity), "")
    yield from ("## How it is trained", "", *NO_NEW_RUN.splitlines(), "")
    yield from (*_rows(name for name, row in RUN.items() if not row.is_identity), "")
    yield from ("## How a sweep is run", "", "Each option has one value for all points of a sweep.", "")
    yield from (*_rows(SWEEP), "")
    yield from ("## What a study is made of", "", "These options are written in an experiment's file.", "")
    yield from (*_rows(STUDY), "")
    for group, options in groups().items():
        if group == "experiment":
            yield from ("## experiment", "", "A file that sets several options at once to answer a question.", "")
            yield from _table(("experiment", "question"), [(f"`{name}`", asks) for name, asks in options.items()])
            yield ""
            continue
        meaning = described_options()[group].meaning
        yield from (f"## {group}", "", f"{meaning[:1].upper()}{meaning[1:]}; default `{default_options()[group]}`.", "")
        for option, meaning in options.items():
            yield from (f"### {group}={option}", "", meaning, "")
            if keys := _keys(group, option):
                yield from (*_table(("key", "default", "meaning"), keys), "")


def _rows(options: Iterable[str]) -> list[str]:
    """A row for each of `options` that has a value in `configs/config.yaml`, in its order."""
    known, defaults = described_options(), read_defaults()
    wanted = {key for name in options for key in OPTIONS[name].keys}
    rows = []
    for name in (name for block in blocks() for name in block):
        option = known[name]
        if name in wanted:
            changed = ", ".join(str(flag.name).lower() for flag in option.moves)
            rows.append((f"`{name}`", f"`{as_override(defaults[name])}`", option.meaning, option.allowed, changed))
    return _table(("option", "default", "meaning", "takes", "changes"), rows)


def _keys(group: str, option: str) -> list[tuple[str, str, str]]:
    """The keys of an option as they are typed, each with its default and its comment in the file."""
    text = (config_folder() / group / f"{option}.yaml").read_text(encoding="utf-8")
    comments = dict(_comments(text))
    return [
        (f"`{group}.{key}`", f"`{as_override(value)}`", comments.get(key, ""))
        for key, value in flattened(yaml.safe_load(text) or {})
        if key.split(".")[-1] not in ("_target_", "defaults")
    ]


def _comments(text: str) -> Iterator[tuple[str, str]]:
    """The comment after each key, by its dotted name: two spaces of indentation are one level."""
    above: list[str] = []
    for line in text.splitlines():
        if found := _KEY.match(line):
            above = [*above[: len(found[1]) // 2], found[2]]
            yield ".".join(above), found[3].partition(" # ")[2].strip()


def _table(titles: Iterable[str], rows: Iterable[tuple[str, ...]]) -> list[str]:
    named = list(titles)
    shown = [_row(row) for row in rows]
    return [_row(named), "|" + " --- |" * len(named), *shown]


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(re.sub(r"([|<])", r"\\\1", cell) for cell in cells) + " |"
