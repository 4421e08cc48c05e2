"""`study.json` in a study's folder: what the study shows beside its runs."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from batchlab.config.published import Published, plain_figures, published
from batchlab.errors import BadRequest
from batchlab.printable import printable
from batchlab.recording import disk
from batchlab.recording.files import read_json, to_json
from batchlab.recording.masking import masked
from batchlab.recording.run_folder import hold_study

STUDY = "study.json"
SCHEMA_VERSION = 1


def add_published(study: Path, figures: Iterable[Published]) -> None:
    """Adds to the figures of others that a study shows; one of the same name takes the place of the older.

    StorageError where the disk refuses.
    """
    disk.make_folder(study)
    with hold_study(study):
        before = read_published(study)
        kept = {_name(figure): figure for figure in (*before, *figures)}
        if (content := tuple(kept.values())) != before:
            values = masked({"published": plain_figures(content)})
            text = to_json({"schema_version": SCHEMA_VERSION, **values}, indent=2)
            disk.write_atomically(study / STUDY, text + "\n")


def read_published(study: Path, damaged: list[str] | None = None) -> tuple[Published, ...]:
    """The figures of others that a study shows; why a damaged file cannot be read is said in `damaged`."""
    try:
        values: Any = read_json(study / STUDY)
        return published(values.get("published", []))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except (OSError, ValueError, AttributeError, BadRequest) as error:
        if damaged is not None:
            damaged.append(printable(f"{study / STUDY} cannot be read: {error}"))
        return ()


def _name(figure: Published) -> str:
    return to_json([figure.what, figure.source, figure.batch_size, figure.ours, figure.where])
