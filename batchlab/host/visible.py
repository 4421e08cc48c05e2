"""The GPUs that CUDA shows to a process, given the driver's GPUs and the environment."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from batchlab.host.nvml import Driver, Gpu

Entry = TypeVar("Entry", int, str)
VISIBLE, ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"


@dataclass(frozen=True)
class Visible:
    """The GPUs that one process sees."""

    devices: tuple[Gpu, ...]  # `cuda:0`, `cuda:1`, ...
    sure: bool  # whether that order is certain: by default CUDA only promises to put the fastest first
    why_none: str = ""  # set if there are none
    instead: str = ""  # and what to do then


def visible(driver: Driver, environ: Mapping[str, str]) -> Visible:
    """What CUDA will show to a process with the environment `environ`."""
    allowed, sure = let_through(driver, environ)
    parts = instances(allowed)
    if parts:
        # CUDA shows only the first MIG instance, and no whole GPU next to one.
        return Visible(parts[:1], sure or len(parts) == 1)
    whole = tuple(gpu for gpu in allowed if not gpu.mig)
    return Visible(whole, sure, *(() if whole else _why_none(driver, environ)))


def let_through(driver: Driver, environ: Mapping[str, str]) -> tuple[list[Gpu], bool]:
    """The GPUs in CUDA_VISIBLE_DEVICES, all if it is not set; and whether their order is certain."""
    decided = environ.get(ORDER) == "PCI_BUS_ID" or len(driver.gpus) < 2
    named = entries(environ.get(VISIBLE))
    if named is None:
        return list(driver.gpus), decided
    chosen: list[Gpu] = []
    for name in named:
        gpu = _found(driver, name)
        if gpu is None:
            break  # CUDA ignores everything after a device that does not exist
        if gpu in chosen:
            return [], True
        chosen.append(gpu)
    return chosen, decided or all(isinstance(name, str) for name in named)


def instances(gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """The MIG instances in `gpus`, and those of GPUs in `gpus`."""
    return tuple(part for gpu in gpus for part in (gpu.instances if gpu.mig else (gpu,)) if _is_part(part))


def entries(text: str | None) -> list[int] | list[str] | None:
    """CUDA_VISIBLE_DEVICES as CUDA reads it: indices or prefixes of UUIDs; None: not set, all are shown.

    The list ends at the first invalid entry: `0,-1,1` is one device, `NoDevFiles` none. If a device is listed twice,
    no device is shown.
    """
    if text is None:
        return None
    for prefix in ("GPU-", "MIG-"):
        if text.startswith(prefix):
            return _until(lambda part, prefix=prefix: part.startswith(prefix), text.split(","))  # type: ignore[misc]
    found = [re.match(r"[+-]?\d+", part.strip()) for part in text.split(",")]  # as C's strtoul: "1st" is 1
    return _until(lambda number: number >= 0, [int(digits[0]) if digits else -1 for digits in found])


def _why_none(driver: Driver, environ: Mapping[str, str]) -> tuple[str, str]:
    """Why a process with this environment sees no GPU, and what to do."""
    value = environ.get(VISIBLE)
    if (value or "").startswith("NoDevFiles"):
        why = f"{VISIBLE}={value}: the batch system assigned no GPU to this job"
        return why, "request one, for example with --gres=gpu:1"
    allowed, _ = let_through(driver, environ)
    if not allowed:
        return f"{VISIBLE}={value} hides all GPUs of this machine", f"set {VISIBLE} to an existing GPU"
    why = f"{allowed[0].name} is in MIG mode and has no instance"
    return why, "create an instance (nvidia-smi mig -cgi ... -C)"


def _found(driver: Driver, name: int | str) -> Gpu | None:
    if isinstance(name, int):
        return driver.gpus[name] if name < len(driver.gpus) else None
    known = [*driver.gpus, *(part for gpu in driver.gpus for part in gpu.instances)]
    like = [gpu for gpu in known if gpu.uuid.startswith(name)]
    return like[0] if len(like) == 1 else None  # CUDA ignores an ambiguous prefix


def _until(valid: Callable[[Entry], bool], named: Sequence[Entry]) -> list[Entry]:
    kept: list[Entry] = []
    for name in named:
        if name in kept:
            return []
        if not valid(name):
            break
        kept.append(name)
    return kept


def _is_part(gpu: Gpu) -> bool:
    return gpu.uuid.startswith("MIG-")
