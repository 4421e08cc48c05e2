"""Who uses a device of this machine at the same time: every point takes a lease, and two that met are marked.

Speed and memory are compared only between points that had the machine to themselves (DESIGN). A lease is a file of
its holder's own, locked for as long as the holder lives, in a folder that all sweeps of this user on this machine
look at, whatever their runs_dir: `$XDG_RUNTIME_DIR/batchlab-<uid>/leases/<device>/`, or below the folder for
temporary files where there is no such folder. A killed holder's lock goes with it; the next who comes removes its
files. A GPU's device is its UUID, however a process numbers it, and its driver is asked as well which other programs
compute on it.
"""

import contextlib
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

from batchlab.errors import BadRequest
from batchlab.host import locks
from batchlab.host.device_choice import say_once
from batchlab.host.neighbours import Neighbours
from batchlab.host.nvml import read_driver
from batchlab.host.visible import VISIBLE, entries, visible

LEASE, MET = ".lease", ".met"  # a holder's file, and the mark that others leave for it
GATE = "gate"  # one at a time may come, go, or take the whole device
TAKEN = "taken"  # held by whoever has the whole device


class Lease:
    """A hold on a device that others see; `unknown` says what of its sharing cannot be known, and why."""

    def __init__(self, device: str, uuid: str | None) -> None:
        self.unknown = ""
        self._device, self._uuid = device, uuid
        self._met = False
        self._file: Path | None = None
        self._descriptor = -1
        self._programs: Neighbours | None = None

    def shared(self) -> bool:
        """Whether anybody else held the device at any time since this lease began (until it ended).

        Of a GPU also whether another program computed on it when the lease began, or does so now. False also where it
        is not known, which `unknown` tells.
        """
        if not self._met and self._file is not None:
            self._met = self._file.with_suffix(MET).exists()
        if not self._met and self._programs is not None:
            self._met = self._programs.met()
            self._note_programs()
        return self._met

    def _begin(self) -> None:
        try:
            folder = _folder(self._uuid or _name(self._device))
            with locks.locked(folder / GATE):
                others = _living(folder)
                self._met = bool(others)
                own = folder / f"{os.getpid()}-{secrets.token_hex(4)}{LEASE}"
                self._descriptor = locks.create(own)
                for other in others:
                    os.close(locks.open_to_lock(other.with_suffix(MET)))
                self._file = own
        except OSError as error:  # whoever shares it, the point can run
            self._note(f"it is not known who shares {self._device} with this point: {_refusal(error)}")
        if self._uuid is not None:
            self._programs = Neighbours(self._uuid)
            self._note_programs()
        elif self._device.startswith("cuda"):
            self._note_programs("the driver does not say which GPU it is")

    def _end(self) -> None:
        """Lets go. What fails here is the next one's to clean up: a point that is done stays done."""
        with contextlib.suppress(OSError):
            if self._file is not None:
                with locks.locked(self._file.with_name(GATE)):
                    self.shared()
                    locks.remove(self._file)
                    locks.remove(self._file.with_suffix(MET))
        self.shared()  # once more, where the gate could not be passed
        self._file = self._programs = None
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def _note_programs(self, why: str = "") -> None:
        why = why or (self._programs.unknown if self._programs is not None else "")
        if why:
            self._note(f"it is not known whether other programs use {self._device} meanwhile: {why}")

    def _note(self, text: str) -> None:
        self.unknown = self.unknown or text
        say_once(text)


@contextlib.contextmanager
def leased(device: str, uuid: str | None = None) -> Iterator[Lease]:
    """Holds `device` (`cpu`, `cuda`, `cuda:1`) together with whoever else does, for as long as the block runs.

    `uuid` is that of the GPU, for who knows it; else the driver is asked. A point on the CPU and one on a GPU share
    only the host, and do not count as sharing. Never fails: what cannot be known is in `unknown`, and on stderr once.
    """
    lease = Lease(device, uuid or uuid_of(device))
    lease._begin()
    try:
        yield lease
    finally:
        lease._end()


@contextlib.contextmanager
def take_device(candidates: Sequence[str]) -> Iterator[str | None]:
    """The first of `candidates`, UUIDs of GPUs, that nobody holds, kept from everybody else who takes; None: all held.

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
            locks.release(descriptor)
        return
    yield None


def uuid_of(device: str) -> str | None:
    """The GPU that this process calls `device`; None for the CPU, and where neither driver nor environment tells."""
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return None
    driver = read_driver()
    if isinstance(driver, str):
        return None
    seen, place = visible(driver, os.environ), int(index or 0)
    return seen.devices[place].uuid if seen.sure and place < len(seen.devices) else None


def _take(folder: Path) -> int | None:
    """The descriptor that keeps the device of `folder`, or None where it is held."""
    with locks.locked(folder / GATE):
        descriptor = locks.open_to_lock(folder / TAKEN)
        if locks.lock(descriptor) and not _living(folder):
            return descriptor
        os.close(descriptor)
        return None


def _living(folder: Path) -> list[Path]:
    """The leases that somebody holds. Removes what dead holders left; its caller must be inside the gate."""
    living = [path for path in sorted(folder.glob(f"*{LEASE}")) if locks.is_held(path)]
    for path in [*folder.glob(f"*{LEASE}"), *folder.glob(f"*{MET}")]:
        if path.with_suffix(LEASE) not in living:
            locks.remove(path)
    return living


def _folder(device: str) -> Path:
    """The folder of the device's leases; OSError where somebody else could write to it."""
    folder = locks.own_folder() / "leases" / re.sub(r"[^A-Za-z0-9_-]", "-", device)
    locks.make_private(folder)
    return folder


def _name(device: str) -> str:
    """`cuda:3` for `cuda:1` where CUDA_VISIBLE_DEVICES=0,3: as near to the device itself as the environment tells."""
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return device
    place, named = int(index or 0), entries(os.environ.get(VISIBLE)) or []
    entry = named[place] if place < len(named) else place
    return entry if isinstance(entry, str) else f"cuda:{entry}"


def _refusal(error: OSError) -> str:
    return f"the folder of leases {locks.own_folder()} cannot be used ({error.strerror or error})"
