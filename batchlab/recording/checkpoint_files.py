"""Checkpoints as files: whole or not there, known by their content, two kept.

`step000001200-<16 hex digits of the SHA-256 of the content>.pt`. The hash is looked at before anything is read from
the file, because `torch.load` takes a file with flipped bits for a good one. It tells damage, not malice.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from batchlab.recording import disk
from batchlab.recording.run_folder import CHECKPOINTS

KEPT = 2
DAMAGED = "damaged"  # where checkpoints go that cannot be used; never deleted
_NAME = re.compile(r"step([0-9]{9,})-([0-9a-f]{16})\.pt")


def write_checkpoint(run_folder: Path, step: int, content: bytes) -> Path:
    """Puts `content` on the disk beside the others, then removes all but the newest two."""
    folder = run_folder / CHECKPOINTS
    disk.make_folder_inside(folder)
    disk.sync_folder(run_folder)  # the folder's name
    path = folder / f"step{step:09d}-{_hash(content)}.pt"
    disk.write_atomically(path, content)
    for old in _newest_first(folder)[KEPT:]:
        disk.remove(old)
    return path


def usable_checkpoints(run_folder: Path, said: list[str]) -> Iterator[tuple[Path, bytes]]:
    """The checkpoints with their content, newest (by step) first; damaged ones are set aside, and that is `said`."""
    folder = run_folder / CHECKPOINTS
    if not folder.is_dir():
        return
    disk.sweep(folder)
    for path in _newest_first(folder):
        content = _content(path)
        if content is not None:
            yield path, content
        else:
            set_aside(path, "its content is not what its name says", said)


def set_aside(path: Path, why: str, said: list[str]) -> None:
    """Moves a checkpoint that cannot be used out of the way, into `checkpoints/damaged/`."""
    disk.make_folder(path.parent / DAMAGED)
    disk.move(path, path.parent / DAMAGED / path.name)
    said.append(f"checkpoint {path.name} cannot be used ({why}): moved to {CHECKPOINTS}/{DAMAGED}/")


def newest_step(run_folder: Path) -> int | None:
    """The step of the newest checkpoint, by its name alone; None where there is none."""
    steps = [int(found[1]) for path in _listed(run_folder / CHECKPOINTS) if (found := _NAME.fullmatch(path.name))]
    return max(steps, default=None)


def remove_checkpoints(run_folder: Path) -> None:
    """Removes them all, of a run that has its answer or begins anew; damaged ones stay."""
    folder = run_folder / CHECKPOINTS
    for path in _newest_first(folder):
        disk.remove(path)
    if folder.is_dir():
        disk.sweep(folder)
        with contextlib.suppress(OSError):  # not empty: something is set aside in it
            disk.remove_folder(folder)


def _content(path: Path) -> bytes | None:
    """The file's bytes, or None where they are not what its name says."""
    found = _NAME.fullmatch(path.name)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            content = file.read()
    except OSError:
        return None
    return content if found and found[2] == _hash(content) else None


def _newest_first(folder: Path) -> list[Path]:
    """By step: a clock that was set back does not make an old checkpoint the newest."""
    named = [(int(found[1]), path) for path in _listed(folder) if (found := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(named, reverse=True)]


def _listed(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
