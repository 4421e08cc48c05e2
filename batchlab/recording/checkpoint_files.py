"""Checkpoint files: written atomically, verified by a hash of their content; the newest two are kept.

`step000001200-<16 hex digits of the SHA-256 of the content>.pt`. The hash is checked before the file is loaded,
because `torch.load` accepts a file with flipped bits. It detects damage, not malice.
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
DAMAGED = "damaged"  # the folder of unusable checkpoints; never deleted
_NAME = re.compile(r"step([0-9]{9,})-([0-9a-f]{16})\.pt")


def write_checkpoint(run_folder: Path, step: int, content: bytes) -> Path:
    """Writes a checkpoint with `content`, then removes all but the newest two."""
    folder = run_folder / CHECKPOINTS
    disk.make_folder_inside(folder)
    disk.sync_folder(run_folder)  # makes the new folder durable
    path = folder / f"step{step:09d}-{_hash(content)}.pt"
    disk.write_atomically(path, content)
    for old in _newest_first(folder)[KEPT:]:
        disk.remove(old)
    return path


def usable_checkpoints(run_folder: Path, messages: list[str]) -> Iterator[tuple[Path, bytes]]:
    """The checkpoints with their content, newest step first; damaged ones are set aside, with a line in `messages`."""
    folder = run_folder / CHECKPOINTS
    if not folder.is_dir():
        return
    disk.sweep(folder)
    for path in _newest_first(folder):
        content = _content(path)
        if content is not None:
            yield path, content
        else:
            set_aside(path, "its content does not match the hash in its name", messages)


def set_aside(path: Path, why: str, messages: list[str]) -> None:
    """Moves a checkpoint that cannot be used into `checkpoints/damaged/`."""
    disk.make_folder(path.parent / DAMAGED)
    disk.move(path, path.parent / DAMAGED / path.name)
    messages.append(f"checkpoint {path.name} cannot be used ({why}): moved to {CHECKPOINTS}/{DAMAGED}/")


def newest_step(run_folder: Path) -> int | None:
    """The step of the newest checkpoint, from its file name; None if there is no checkpoint."""
    steps = [int(found[1]) for path in _listed(run_folder / CHECKPOINTS) if (found := _NAME.fullmatch(path.name))]
    return max(steps, default=None)


def remove_checkpoints(run_folder: Path) -> None:
    """Removes all checkpoints of a run that is final or starts again; damaged ones are kept."""
    folder = run_folder / CHECKPOINTS
    for path in _newest_first(folder):
        disk.remove(path)
    if folder.is_dir():
        disk.sweep(folder)
        with contextlib.suppress(OSError):  # not empty: something is set aside in it
            disk.remove_folder(folder)


def _content(path: Path) -> bytes | None:
    """The file's bytes, or None if they do not match the hash in its name."""
    found = _NAME.fullmatch(path.name)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            content = file.read()
    except OSError:
        return None
    return content if found and found[2] == _hash(content) else None


def _newest_first(folder: Path) -> list[Path]:
    """Sorted by step and not by time: the clock may have been set back."""
    named = [(int(found[1]), path) for path in _listed(folder) if (found := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(named, reverse=True)]


def _listed(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
