"""Who uses a device of this machine at the same time: every point takes a lease, and two that met are marked.

Speed and memory are compared only between points that had the machine to themselves (DESIGN). A lease is a file of
its holder's own, locked for as long as the holder lives, in a folder that all sweeps of this user on this machine
look at, whatever their runs_dir: `$XDG_RUNTIME_DIR/batchlab-<uid>/leases/<device>/`, or below the folder for
temporary files where there is no such folder. A killed holder's lock goes with it; the next who comes removes its
files.
"""

import contextlib
import fcntl
import os
import re
import secrets
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from batchlab.errors import BadRequest
from batchlab.recording import disk

LEASE, MET = ".lease", ".met"  # a holder's file, and the mark that others leave for it
GATE = "gate"  # one at a time may come, go, or take the whole device
TAKEN = "taken"  # held by whoever has the whole device

_said: set[str] = set()


class Lease:
    """A hold on a device that others see; `unknown` says why they do not, where it could not be taken."""

    def __init__(self, device: str) -> None:
        self.unknown = ""
        self._device = device
        self._met = False
        self._file: Path | None = None
        self._descriptor = -1

    def shared(self) -> bool:
        """Whether anybody else held the device at any time since this lease began (until it ended).

        False also where it is not known, which `unknown` tells.
        """
        if not self._met and self._file is not None:
            self._met = self._file.with_suffix(MET).exists()
        return self._met

    def _begin(self) -> None:
        try:
            folder = _folder(self._device)
            with disk.locked(folder / GATE):
                others = _living(folder)
                self._met = bool(others)
                own = folder / f"{os.getpid()}-{secrets.token_hex(4)}{LEASE}"
                self._descriptor = disk.create(own)
                fcntl.flock(self._descriptor, fcntl.LOCK_EX)
                for other in others:
                    os.close(disk.open_to_lock(other.with_suffix(MET)))
                self._file = own
        except OSError as error:  # whoever shares it, the point can run
            self.unknown = f"it is not known who shares {self._device} with this point: {_refusal(error)}"
            _say_once(self.unknown)

    def _end(self) -> None:
        """Lets go. What fails here is the next one's to clean up: a point that is done stays done."""
        with contextlib.suppress(OSError):
            if self._file is not None:
                with disk.locked(self._file.with_name(GATE)):
                    self.shared()
                    disk.remove(self._file)
                    disk.remove(self._file.with_suffix(MET))
        self.shared()  # once more, where the gate could not be passed
        self._file = None
        if self._descriptor >= 0:
            os.close(self._descriptor)


@contextlib.contextmanager
def leased(device: str) -> Iterator[Lease]:
    """Holds `device` (`cpu`, `cuda`, `cuda:1`) together with whoever else does, for as long as the block runs.

    A point on the CPU and one on a GPU share only the host, and do not count as sharing. Never fails: where the
    folder of leases cannot be used, `unknown` says why, and stderr does once.
    """
    lease = Lease(device)
    lease._begin()
    try:
        yield lease
    finally:
        lease._end()


@contextlib.contextmanager
def take_device(candidates: Sequence[str]) -> Iterator[str | None]:
    """The first of `candidates` that nobody holds, kept from everybody else who takes; None where all are held.

    A device with a lease on it is held too. It is taken for a point whose process then leases it. Raises BadRequest
    where the folder of leases cannot be used, for then nothing keeps two points off one device.
    """
    for device in candidates:
        try:
            descriptor = _take(_folder(device))
        except OSError as error:
            raise BadRequest(
                f"several points at once need a device each, and {_refusal(error)}: use jobs=1, or set "
                "XDG_RUNTIME_DIR to a folder of your own"
            ) from error
        if descriptor is None:
            continue
        try:
            yield device
        finally:
            # Not left to close: a child of a fork may have the descriptor too, and would keep the lock.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)
        return
    yield None


def _take(folder: Path) -> int | None:
    """The descriptor that keeps the device of `folder`, or None where it is held."""
    with disk.locked(folder / GATE):
        descriptor = disk.open_to_lock(folder / TAKEN)
        if _lock(descriptor) and not _living(folder):
            return descriptor
        os.close(descriptor)
        return None


def _living(folder: Path) -> list[Path]:
    """The leases that somebody holds. Removes what dead holders left; its caller must be inside the gate."""
    living = [path for path in sorted(folder.glob(f"*{LEASE}")) if _is_held(path)]
    for path in [*folder.glob(f"*{LEASE}"), *folder.glob(f"*{MET}")]:
        if path.with_suffix(LEASE) not in living:
            disk.remove(path)
    return living


def _is_held(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return not _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Locks the file, unless another holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _folder(device: str) -> Path:
    """The folder of the device's leases; OSError where somebody else could write to it."""
    own = _own_folder()
    with contextlib.suppress(FileExistsError):
        own.mkdir(mode=0o700)  # not through disk: private from its first moment, and a link is no folder to it
    found = own.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError("it is not a folder that only you can write to")
    folder = own / "leases" / _file_name(device)
    disk.make_folder(folder)
    return folder


def _own_folder() -> Path:
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", ""))  # a job may have been handed one of another machine
    parent = runtime if runtime.is_absolute() and runtime.is_dir() else Path(tempfile.gettempdir())
    return parent / f"batchlab-{os.getuid()}"


def _file_name(device: str) -> str:
    """`cuda-3` for `cuda:1` where CUDA_VISIBLE_DEVICES=0,3: the device itself, however the process numbers it."""
    kind, _, index = device.partition(":")
    if kind == "cuda":
        visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
        place = int(index or 0)
        device = f"cuda-{visible[place] if place < len(visible) else place}"
    return re.sub(r"[^A-Za-z0-9_-]", "-", device)


def _refusal(error: OSError) -> str:
    return f"the folder of leases {_own_folder()} cannot be used ({error.strerror or error})"


def _say_once(text: str) -> None:
    if text not in _said:
        _said.add(text)
        sys.stderr.write(text + "\n")
