"""Appends to a file of JSON lines, without names of this machine's folders."""

import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def public(text):
    """`text` without the folders of this machine."""
    places = ((sys.executable, "python"), (str(ROOT), "."), (sys.prefix, "$PREFIX"), (sys.base_prefix, "$PREFIX"))
    for private, word in (*places, (str(Path.home()), "~"), (tempfile.gettempdir(), "$TMP")):
        if private not in ("/", ""):
            text = text.replace(private, word)
    return text


def append(file, **line):
    """Appends a line in a single write, so that earlier lines can be read after a kill."""
    with Path(file).open("a", encoding="utf-8") as out:
        out.write(public(json.dumps(line, default=str)) + "\n")


def read(file):
    """The lines so far; empty if there is no file yet."""
    return [json.loads(line) for line in Path(file).read_text().splitlines()] if Path(file).exists() else []
