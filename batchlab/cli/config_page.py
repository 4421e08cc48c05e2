"""The options as a page of Markdown, `docs/configuration.md`: made from their table and `configs/`, never by hand."""

import re
from collections.abc import Iterable, Iterator

import yaml

from batchlab.cli.option_help import blocks, default_options, groups, knobs, read_defaults, written
from batchlab.config.options import OPTIONS, RUN, STUDY, SWEEP
from batchlab.config.values import leaves
from batchlab.config_folder import config_folder

COMMAND = "batchlab config --markdown"
HOW = """\
An option is written `OPTION=VALUE`, and several values with commas between them are swept: `batch_size=8,32 seed=0,1`.
A group is chosen by the name of a file, `model=cnn`, and its keys are written behind a dot, `model.width=32`.
`batchlab config OPTION=VALUE ...` shows the config that a command would use.
A file of your own in `my_configs/experiment/night.yaml` is `--config-dir my_configs experiment=night`."""
_KEY = re.compile(r"( *)([\w.]+):(.*)")


def page() -> str:
    """The whole page; a test holds the file in `docs/` to it."""
    return "\n".join(_lines()).rstrip() + "\n"


def _lines() -> Iterator[str]:
    yield from ("# Configuration", "", f"This page is what `{COMMAND}` prints: the code says it.", "", HOW, "")
    yield from ("## What a run is", "", "Another value of one of these makes another run, in a folder of its own.")
    yield from ("What it moves is in the last column; points are compared where nothing else moved that.", "")
    yield from (*_knobs(name for name, row in RUN.items() if row.is_identity), "")
    yield from ("## How it is trained", "", "These change no result, and make no other run.", "")
    yield from (*_knobs(name for name, row in RUN.items() if not row.is_identity), "")
    yield from ("## How a sweep is conducted", "", "Each has one value for all points of a sweep.", "")
    yield from (*_knobs(SWEEP), "")
    yield from ("## What a study is made of", "", "These are written in an experiment's file.", "")
    yield from (*_knobs(STUDY), "")
    for group, options in groups().items():
        if group == "experiment":
            yield from ("## experiment", "", "A file that sets several options at once, and asks a question.", "")
            yield from _table(("experiment", "question"), [(f"`{name}`", asks) for name, asks in options.items()])
            yield ""
            continue
        meaning = knobs()[group].meaning
        yield from (f"## {group}", "", f"{meaning[:1].upper()}{meaning[1:]}; default `{default_options()[group]}`.", "")
        for option, meaning in options.items():
            yield from (f"### {group}={option}", "", meaning, "")
            if keys := _keys(group, option):
                yield from (*_table(("key", "default", "meaning"), keys), "")


def _knobs(options: Iterable[str]) -> list[str]:
    """Those of `options` that `configs/config.yaml` gives a value, in its order."""
    known, defaults, wanted = knobs(), read_defaults(), {key for name in options for key in OPTIONS[name].keys}
    rows = []
    for name in (name for block in blocks() for name in block):
        knob = known[name]
        if name in wanted:
            moved = ", ".join(str(flag.name).lower() for flag in knob.moves)
            rows.append((f"`{name}`", f"`{written(defaults[name])}`", knob.meaning, knob.allowed, moved))
    return _table(("option", "default", "meaning", "takes", "moves"), rows)


def _keys(group: str, option: str) -> list[tuple[str, str, str]]:
    """The keys of an option as they are typed, each with its default and its comment in the file."""
    text = (config_folder() / group / f"{option}.yaml").read_text(encoding="utf-8")
    comments = dict(_comments(text))
    return [
        (f"`{group}.{key}`", f"`{written(value)}`", comments.get(key, ""))
        for key, value in leaves(yaml.safe_load(text) or {})
        if key.split(".")[-1] not in ("_target_", "defaults")
    ]


def _comments(text: str) -> Iterator[tuple[str, str]]:
    """The comment behind each key, by its dotted name: two spaces further in is one level further down."""
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
