"""`study.json` in a study's folder: what the study shows in addition to its runs.

Keys and figures that another version wrote and this one does not know are kept.
"""

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
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
    """Adds published figures to a study; a figure replaces an older one of the same name, or with only another `what`.

    A damaged file is set aside, and a message about it is returned. StorageError if the file cannot be written, or
    cannot be read: then it is not overwritten.
    """
    disk.make_folder(study)
    path, message = study / STUDY, None
    with hold_study(study):
        content: dict[str, Any] = {}
        try:
            content = _content(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StorageError.of(error, path, "read") from error
        except ValueError as error:
            message = _set_aside(path, error)
        before = content.get("published", [])
        added = {_name(entry, "published"): entry for entry in map(masked, plain_figures(tuple(figures)))}
        kept = {_name(entry, f"published[{at}]"): entry for at, entry in enumerate(before)}
        reworded = [_without_text(entry) for name, entry in added.items() if name not in kept]
        kept = {name: entry for name, entry in kept.items() if name in added or _without_text(entry) not in reworded}
        kept |= added
        if (after := list(kept.values())) != before:
            text = to_json({"schema_version": SCHEMA_VERSION, **content, "published": after}, indent=2)
            disk.write_atomically(path, text + "\n")
    return message


def read_published(study: Path, damaged: list[str] | None = None) -> tuple[Published, ...]:
    """The published figures of a study; those that cannot be read are left out and listed in `damaged`."""
    path, problems = study / STUDY, [] if damaged is None else damaged
    found: list[Published] = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        try:
            for at, entry in enumerate(_content(path).get("published", [])):
                try:
                    found.append(figure(f"published[{at}]", entry))
                except BadRequest as error:
                    problems.append(printable(f"{path} has a figure that cannot be read: {error}"))
        except ValueError as error:
            problems.append(printable(f"{path} cannot be read: {error}"))
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError as error:
            problems.append(printable(f"{path} cannot be read: {error.strerror or error}"))
    return tuple(found)


def _content(path: Path) -> dict[str, Any]:
    """OSError if the file cannot be read, ValueError if its content is not a study file's."""
    values = read_json(path)
    if not isinstance(values, dict) or not isinstance(values.get("published", []), list):
        raise ValueError("it is not a mapping with a list of published figures")
    return values


def _set_aside(path: Path, error: ValueError) -> str:
    """Renames a damaged file to a new name and returns a message about it."""
    aside = next(path.with_name(name) for name in _names(path.name) if not path.with_name(name).exists())
    disk.move(path, aside)
    return printable(f"{path} cannot be read: {error}; it is kept as {aside.name}, and its figures are not shown")


def _names(name: str) -> Iterator[str]:
    yield f"{name}.damaged"
    yield from (f"{name}.damaged-{number}" for number in itertools.count(2))


def _without_text(entry: Any) -> str | None:
    """A figure without its `what`, as text; None if the entry is not a valid figure."""
    with contextlib.suppress(BadRequest):
        return to_json(plain_figures((replace(figure("published", entry), what=""),)))
    return None


def _name(entry: Any, where: str) -> str:
    """The key by which a newer figure replaces this one; an entry that is not a valid figure has a unique key."""
    try:
        found = figure(where, entry)
    except BadRequest:
        return where
    return to_json([found.what, found.source, found.batch_size, found.ours, found.where])
