"""`study.json` in a study's folder: what the study shows beside its runs.

What another version wrote there and this one does not know is kept: neither a key nor a figure of it is dropped.
"""

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from batchlab.config.published import Published, figure, plain_figures
from batchlab.errors import BadRequest, StorageError
from batchlab.printable import printable
from batchlab.recording import disk
from batchlab.recording.files import read_json, to_json
from batchlab.recording.masking import masked
from batchlab.recording.run_folder import hold_study

STUDY = "study.json"
SCHEMA_VERSION = 1


def add_published(study: Path, figures: Iterable[Published]) -> str | None:
    """Adds to the figures of others that a study shows; one of the same name takes the place of the older.

    A file that is damaged is set aside, and what is to be said of it is returned. StorageError where the disk refuses,
    also to read the file: it is not overwritten.
    """
    disk.make_folder(study)
    path, said = study / STUDY, None
    with hold_study(study):
        content: dict[str, Any] = {}
        try:
            content = _content(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StorageError.of(error, path, "read") from error
        except ValueError as error:
            said = _set_aside(path, error)
        before = content.get("published", [])
        kept = {_name(entry, f"published[{at}]"): entry for at, entry in enumerate(before)}
        for new in plain_figures(tuple(figures)):
            entry = masked(new)
            kept[_name(entry, "published")] = entry
        if (after := list(kept.values())) != before:
            text = to_json({"schema_version": SCHEMA_VERSION, **content, "published": after}, indent=2)
            disk.write_atomically(path, text + "\n")
    return said


def read_published(study: Path, damaged: list[str] | None = None) -> tuple[Published, ...]:
    """The figures of others that a study shows; what cannot be read of them is said in `damaged`, and left out."""
    path, said = study / STUDY, [] if damaged is None else damaged
    found: list[Published] = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        try:
            for at, entry in enumerate(_content(path).get("published", [])):
                try:
                    found.append(figure(f"published[{at}]", entry))
                except BadRequest as error:
                    said.append(printable(f"{path} has a figure that cannot be read: {error}"))
        except ValueError as error:
            said.append(printable(f"{path} cannot be read: {error}"))
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError as error:
            said.append(printable(f"{path} cannot be read: {error.strerror or error}"))
    return tuple(found)


def _content(path: Path) -> dict[str, Any]:
    """OSError where the file cannot be read, ValueError where it does not hold what is written there."""
    values = read_json(path)
    if not isinstance(values, dict) or not isinstance(values.get("published", []), list):
        raise ValueError("it is no mapping with a list of published figures")
    return values


def _set_aside(path: Path, error: ValueError) -> str:
    """Renames a damaged file, in place of none that was set aside before; what to say of it."""
    aside = next(path.with_name(name) for name in _names(path.name) if not path.with_name(name).exists())
    disk.move(path, aside)
    return printable(f"{path} cannot be read: {error}; it is kept as {aside.name}, and its figures are not shown")


def _names(name: str) -> Iterator[str]:
    yield f"{name}.damaged"
    yield from (f"{name}.damaged-{number}" for number in itertools.count(2))


def _name(entry: Any, where: str) -> str:
    """What a figure is of, for one of the same takes its place; an entry that is no figure here is like no other."""
    try:
        found = figure(where, entry)
    except BadRequest:
        return where
    return to_json([found.what, found.source, found.batch_size, found.ours, found.where])
