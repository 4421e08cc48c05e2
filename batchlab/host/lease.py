"""Detects points that use a device of this machine at the same time: every point takes a lease on its device.

Speed and memory are compared only between points that did not share the machine (DESIGN). A lease is a file that its
holder keeps locked while it lives, in a folder that all sweeps of this user on this machine use, whatever their
runs_dir: `$XDG_RUNTIME_DIR/batchlab-<uid>/leases/<device>/`, or below the folder for temporary files if that does not
exist. The lock of a killed holder is released by the system, and the next lease removes its files. A GPU is identified
by its UUID, since its index depends on the process; its driver also reports which other programs use it.
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
from batchlab.records import Unknown

LEASE, MET = ".lease", ".met"  # a holder's file, and the mark that another process leaves for it
GATE = "gate"  # held while a lease begins or ends, or a whole device is taken
TAKEN = "taken"  # held by the process that has the whole device


class Lease:
    """A lease on a device, visible to other processes; `unknown` says what is not known about sharing, and why."""

    def __init__(self, device: str, uuid: str | None) -> None:
        self.unknown = ""
        self._device, self._uuid = device, uuid
        self._met = False
        self._file: Path | None = None
        self._descriptor = -1
        self._programs: Neighbours | None = None

    def shared(self) -> bool:
        """Whether another process held a lease on the device at any time during this one.

        For a GPU also whether another program used it when the lease began, or uses it now. Also False if that is not
        known; then `unknown` says so.
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
        except OSError as error:  # the point can run all the same
            self._note(f"whether other points share {self._device} with this one is not known: {_refusal(error)}")
        if self._uuid is not None:
            self._programs = Neighbours(self._uuid)
            self._note_programs()
        elif self._device.startswith("cuda"):
            self._note_programs("the driver does not report which GPU it is")

    def _end(self) -> None:
        """Ends the lease. Errors are ignored: the next lease cleans up, and a finished point stays finished."""
        with contextlib.suppress(OSError):
            if self._file is not None:
                with locks.locked(self._file.with_name(GATE)):
                    self.shared()
                    locks.remove(self._file)
                    locks.remove(self._file.with_suffix(MET))
        self.shared()  # again, if the gate could not be locked
        self._file = self._programs = None
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def _note_programs(self, why: str = "") -> None:
        why = why or (self._programs.unknown if self._programs is not None else "")
        if why:
            self._note(f"whether other programs use {self._device} at the same time is not known: {why}")

    def _note(self, text: str) -> None:
        self.unknown = self.unknown or text
        say_once(text)


@contextlib.contextmanager
def leased(device: str, uuid: str | None = None) -> Iterator[Lease]:
    """Holds a lease on `device` (`cpu`, `cuda`, `cuda:1`) while the block runs; others may hold one as well.

    `uuid` is the GPU's, if the caller knows it; otherwise the driver is queried. A point on the CPU and one on a GPU
    share only the host, which does not count. Never raises: `unknown` and, once, stderr say what is not known.
    """
    lease = Lease(device, uuid or uuid_of(device))
    lease._begin()
    try:
        yield lease
    finally:
        lease._end()


@contextlib.contextmanager
def take_device(candidates: Sequence[str]) -> Iterator[str | None]:
    """Takes the first of `candidates` (UUIDs of GPUs) that no other process holds; None if all are held.

    A device with a lease on it is held too. It is taken for a point, whose process then leases it. Raises BadRequest
    if the folder of leases cannot be used, since two points could then get the same device.
    """
    for device in candidates:
        try:
            descriptor = _take(_folder(device))
        except OSError as error:
            raise BadRequest(
                f"jobs above 1 needs a device for each point, but {_refusal(error)}: use jobs=1, or set "
                "XDG_RUNTIME_DIR to a folder that belongs to you"
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
    """The UUID of the GPU `device` of this process; None for the CPU, or if driver and environment do not tell."""
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return None
    driver = read_driver()
    if isinstance(driver, Unknown):
        return None
    seen, place = visible(driver, os.environ), int(index or 0)
    return seen.devices[place].uuid if seen.sure and place < len(seen.devices) else None


def _take(folder: Path) -> int | None:
    """A descriptor that keeps the device of `folder` taken, or None if another process holds it."""
    with locks.locked(folder / GATE):
        descriptor = locks.open_to_lock(folder / TAKEN)
        if locks.lock(descriptor) and not _living(folder):
            return descriptor
        os.close(descriptor)
        return None


def _living(folder: Path) -> list[Path]:
    """The leases held by living processes. Removes the files of dead holders; the caller must hold the gate."""
    living = [path for path in sorted(folder.glob(f"*{LEASE}")) if locks.is_held(path)]
    for path in [*folder.glob(f"*{LEASE}"), *folder.glob(f"*{MET}")]:
        if path.with_suffix(LEASE) not in living:
            locks.remove(path)
    return living


def _folder(device: str) -> Path:
    """The folder of the device's leases; OSError if another user could write to it."""
    folder = locks.own_folder() / "leases" / re.sub(r"[^A-Za-z0-9_-]", "-", device)
    locks.make_private(folder)
    return folder


def _name(device: str) -> str:
    """`cuda:3` for `cuda:1` with CUDA_VISIBLE_DEVICES=0,3: the best name that the environment gives."""
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return device
    place, named = int(index or 0), entries(os.environ.get(VISIBLE)) or []
    entry = named[place] if place < len(named) else place
    return entry if isinstance(entry, str) else f"cuda:{entry}"


def _refusal(error: OSError) -> str:
    return f"the folder of leases {locks.own_folder()} cannot be used ({error.strerror or error})"
