"""Chooses a run's device in the parent process, which uses none; the child process checks the choice with PyTorch."""

import functools
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from batchlab.errors import BadRequest
from batchlab.host.gpu_pool import unusable
from batchlab.host.nvml import Driver, read_driver
from batchlab.host.torch_build import Build, installed_build
from batchlab.host.visible import VISIBLE, entries, visible
from batchlab.records import Unknown

AMD_DRIVER = Path("/dev/kfd")
HIDING = ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", VISIBLE)  # AMD's, in the order they are read

ELSE = "use device=cpu, or device=auto, which uses a GPU if there is one"


@dataclass(frozen=True)
class NoCuda:
    """Why CUDA cannot be used here."""

    what: str
    instead: str = ""  # what makes it usable
    surprising: bool = False  # there is a GPU, or there should be: a user of `auto` should be warned


def resolve_device(
    requested: str,
    *,
    environ: Mapping[str, str] = os.environ,
    build: Build | None = None,
    driver: Driver | Unknown | None = None,
) -> str:
    """Resolves `auto` to `cuda` or `cpu` and keeps other names; BadRequest if CUDA is requested and cannot be used.

    If `auto` selects the CPU although there is a GPU, stderr says why, once. `build` and `driver` default to this
    machine's.
    """
    if requested == "cpu":
        return requested
    problem = why_no_cuda(requested, environ, build or installed_build(), driver)
    if requested == "auto":
        if problem is not None and problem.surprising:
            say_once(f"device=auto uses the CPU: {problem.what}; {problem.instead}")
        return "cpu" if problem else "cuda"
    if problem is not None:
        instead = f"{problem.instead}, or use device=cpu" if problem.instead else ELSE
        raise BadRequest(f"device={requested} was requested, but {problem.what}: {instead}")
    return requested


def device_of_remote_jobs(requested: str, launcher: str) -> str:
    """The device of runs on other machines: the requested one, whatever this machine has. BadRequest for `auto`.

    The device is part of a run's identity and fixed before its job starts; the other machines' devices are not known.
    """
    if requested == "auto":
        raise BadRequest(
            f"device=auto chooses by the devices of this machine, but the jobs of hydra/launcher={launcher} run on "
            "others: add device=cuda or device=cpu"
        )
    return requested


def why_no_cuda(
    requested: str, environ: Mapping[str, str], build: Build, driver: Driver | Unknown | None
) -> NoCuda | None:
    """Why the requested CUDA device cannot be used, as far as this can be found out without PyTorch; else None."""
    if build.hip:
        return _amd_problem(environ)
    hidden = entries(environ.get(VISIBLE)) == []
    if hidden and not (environ[VISIBLE] or "").startswith("NoDevFiles"):
        return NoCuda(f"{VISIBLE}={environ[VISIBLE]} hides every device", f"unset {VISIBLE}")
    found = read_driver() if driver is None else driver
    if not build.cuda:
        there = isinstance(found, Driver) and bool(found.gpus)
        what = "the installed PyTorch is built without CUDA"
        instead = "install one for this GPU (https://pytorch.org/get-started/locally)" if there else ""
        return NoCuda(what, instead, there)
    if isinstance(found, Unknown) or not found.gpus:
        return NoCuda("no NVIDIA driver with a GPU was found on this machine")
    return _nvidia_problem(requested, environ, build, found)


def _nvidia_problem(requested: str, environ: Mapping[str, str], build: Build, driver: Driver) -> NoCuda | None:
    seen = visible(driver, environ)
    if not seen.devices:
        return NoCuda(seen.why_none, seen.instead, surprising=True)
    if driver.cuda is not None and driver.cuda[0] < build.cuda_major:
        newest = ".".join(map(str, driver.cuda))
        return NoCuda(
            f"its driver {driver.version} supports CUDA {newest}, but PyTorch is built for CUDA {build.cuda}",
            f"update the driver, or install a PyTorch built for CUDA {driver.cuda[0]}",
            surprising=True,
        )
    index = int(requested.partition(":")[2] or 0)
    if index >= len(seen.devices):
        there = "only cuda:0" if len(seen.devices) == 1 else f"cuda:0 to cuda:{len(seen.devices) - 1}"
        return NoCuda(f"this machine has {there}", "use one of those", surprising=True)
    candidates = [seen.devices[index]] if ":" in requested and seen.sure else list(seen.devices)
    reasons = [unusable(gpu) for gpu in candidates]
    if all(reasons):
        return NoCuda(reasons[0], "wait for it, or share it with `nvidia-smi -c DEFAULT`", surprising=True)
    return None


def _amd_problem(environ: Mapping[str, str]) -> NoCuda | None:
    """AMD devices are not counted here, since NVML does not know them: the child process counts them."""
    for variable in HIDING:
        if environ.get(variable, "0").strip() in ("", "-1"):
            return NoCuda(f"{variable}={environ[variable]} hides every device", f"unset {variable}")
    if not AMD_DRIVER.exists():
        return NoCuda(f"PyTorch is built for AMD GPUs, but their driver is missing ({AMD_DRIVER})")
    return None


@functools.cache
def say_once(text: str) -> None:
    """Prints `text` on stderr, unless this process has printed it before."""
    sys.stderr.write(text + "\n")
