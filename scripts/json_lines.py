"""Appending to a file of JSON lines that is read elsewhere: it names no folder of this machine."""

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
    """One line, in one write: what was written before a kill can be read."""
    with Path(file).open("a", encoding="utf-8") as out:
        out.write(public(json.dumps(line, default=str)) + "\n")


def read(file):
    """The lines so far; none where there is no file yet."""
    return [json.loads(line) for line in Path(file).read_text().splitlines()] if Path(file).exists() else []
