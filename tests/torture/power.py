"""Power loss: what a disk may hold after the plug was pulled, when only what was synced is sure to be there.

The model is POSIX's, harsher than any one file system: a file's bytes are sure once it was fsynced, a name once its
folder was, and of everything else any part may have come through or not.
"""

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torture.faulty import FaultyOs

MADE = ("open", "makedirs", "mkdir")


@dataclass
class File:
    """One file: what the system shows of it, and what is sure to be on the disk."""

    data: bytearray = field(default_factory=bytearray)
    synced: bytes = b""


@dataclass
class Folder:
    """One folder: the names in it, and those that are sure to be on the disk."""

    names: dict[str, "File | Folder"] = field(default_factory=dict)
    synced: dict[str, "File | Folder"] = field(default_factory=dict)


class Recorder(FaultyOs):
    """Takes down every change below `root`, in its order."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = str(root)
        self.log: list[tuple[Any, ...]] = []

    def _call(self, name: str, real: Any, *args: Any, **kwargs: Any) -> Any:
        before = os.path.lexists(args[0]) if name == "open" else False
        missing = _missing(args[0]) if name == "makedirs" else []
        found = super()._call(name, real, *args, **kwargs)
        path = self._inside(self.calls[-1].path)
        if path is None:
            return found
        if name == "open" and not before:
            self.log.append(("create", path))
        elif name == "open" and args[1] & os.O_TRUNC:
            self.log.append(("truncate", path, 0))
        elif name == "write":
            self.log.append(("write", path, bytes(args[1][:found])))
        elif name == "ftruncate":
            self.log.append(("truncate", path, args[1]))
        elif name == "fsync":
            self.log.append(("fsync", path))
        elif name == "replace":
            self.log.append(("replace", self._inside(os.fspath(args[0])), path))
        elif name == "makedirs":
            self.log += [("mkdir", self._inside(made)) for made in missing]
        elif name in ("mkdir", "unlink", "rmdir"):
            self.log.append((name, path))
        return found

    def _inside(self, path: str) -> str | None:
        return os.path.relpath(path, self.root) if path.startswith(self.root) else None


def _missing(path: Any) -> list[str]:
    """The folders that `makedirs` is about to make, outermost first."""
    wanted = [Path(path), *Path(path).parents]
    return [str(folder) for folder in reversed(wanted) if not folder.exists()]


@dataclass
class Disk:
    """The disk under one root, as far as a log has got."""

    top: Folder = field(default_factory=Folder)

    def replay(self, log: Sequence[tuple[Any, ...]]) -> None:
        for kind, path, *more in log:
            self._do(kind, path, more)

    def _do(self, kind: str, path: str, more: Sequence[Any]) -> None:
        folder, name = self._place(path)
        if kind == "create":
            folder.names[name] = File()
        elif kind == "mkdir":
            folder.names[name] = Folder()
        elif kind in ("unlink", "rmdir"):
            del folder.names[name]
        elif kind == "replace":
            target, new_name = self._place(more[0])
            target.names[new_name] = folder.names.pop(name)
        else:
            found = folder.names[name] if name else self.top
            if isinstance(found, Folder):  # fsync is all that is done to one
                found.synced = dict(found.names)
            elif kind == "write":
                found.data += more[0]
            elif kind == "truncate":
                del found.data[more[0] :]
            elif kind == "fsync":
                found.synced = bytes(found.data)

    def _place(self, path: str) -> tuple[Folder, str]:
        folder = self.top
        *parents, name = path.split("/") if path != "." else [""]
        for parent in parents:
            inner = folder.names[parent]
            assert isinstance(inner, Folder)
            folder = inner
        return folder, name


def image(top: Folder, place: Path, variant: str, draw: random.Random) -> None:
    """Puts on a real disk what the power loss left.

    `synced`: nothing but what was sure. `names`: every name, whatever its file holds: a rename without its data.
    `some`: a random part of the names and of the bytes that were under way.
    """
    names = dict(top.synced)
    if variant == "names":
        names = top.names
    elif variant == "some":
        for name in {*top.names, *top.synced}:
            chosen = draw.choice((top.names, top.synced)).get(name)
            names.pop(name, None)
            if chosen is not None:
                names[name] = chosen
    for name, found in names.items():
        path = place / name
        if isinstance(found, Folder):
            path.mkdir()
            image(found, path, variant, draw)
        else:
            path.write_bytes(_bytes(found, variant, draw))


def _bytes(file: File, variant: str, draw: random.Random) -> bytes:
    if variant != "some" or bytes(file.data) == file.synced:
        return file.synced
    if len(file.data) < len(file.synced):
        return draw.choice((file.synced, bytes(file.data)))
    more = bytes(file.data[len(file.synced) :])
    kept = more[: draw.randrange(len(more) + 1)]
    # The length may be written before the bytes: they are zeros then.
    return bytes(file.data[: len(file.synced)]) + draw.choice((kept, b"\0" * len(kept)))


VARIANTS = ("synced", "names", "some", "some")
