"""A file that is replaced: whoever reads it sees the old content or the new, wherever the writer dies."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batchlab.errors import StorageError
from batchlab.recording import disk
from torture.faulty import KINDS, FaultyOs, Kind, through
from torture.forks import in_a_child

OLD, NEW = b"old" * 1000, b"new" * 2000


def replaced(path: Path, door: FaultyOs) -> dict[str, Any]:
    with through(door):
        try:
            disk.write_atomically(path, NEW)
        except StorageError as error:
            return {"reported": str(error), "calls": len(door.calls), "names": [call.name for call in door.calls]}
    return {"reported": None, "calls": len(door.calls), "names": [call.name for call in door.calls]}


def faults(scratch: Path) -> Iterator[str | None]:
    """Every call of one replacement, in every way: None where nothing is wrong."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    whole = replaced(folder / "file", FaultyOs())
    for at in range(1, whole["calls"] + 1):
        for kind in KINDS:
            if kind.writes_only and whole["names"][at - 1] != "write":
                continue
            yield _fault(Path(tempfile.mkdtemp(dir=scratch)) / "file", at, kind)


def _fault(path: Path, at: int, kind: Kind) -> str | None:
    path.write_bytes(OLD)
    ending = in_a_child(lambda: replaced(path, FaultyOs(at, kind)))
    where = f"call {at}, {kind.name}"
    if not path.exists():
        return f"{where}: it is gone"
    found = path.read_bytes()
    if found not in (OLD, NEW):
        return f"{where}: {len(found)} bytes that are neither"
    if ending.killed:
        disk.sweep(path.parent)
    elif ending.code != 0:
        return f"{where}: {ending.reported}"
    elif ending.reported["reported"] is None and found != NEW:
        return f"{where}: nothing was reported, and it is the old one"
    elif ending.reported["reported"] is not None and str(path.parent) not in ending.reported["reported"]:
        return f"{where}: {ending.reported['reported']} names no path"
    left = [entry.name for entry in path.parent.iterdir() if entry != path]
    lasting = kind.lasting and not ending.killed  # then nothing could be removed either
    return None if not left or lasting else f"{where}: {left} is left"
