"""Which device a run gets, decided in a parent that touches none: the child has the last word, and asks PyTorch."""

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
from batchlab.host.visible import VISIBLE, Visible, entries, visible

AMD_DRIVER = Path("/dev/kfd")
HIDING = ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", VISIBLE)  # AMD's, in the order they are asked

ELSE = "use device=cpu, or device=auto to take CUDA where there is one"


@dataclass(frozen=True)
class Lack:
    """Why CUDA cannot be used here."""

    what: str
    instead: str = ""  # what makes it usable
    surprising: bool = False  # there is a GPU, or there should be: who said `auto` should hear of it


def resolve_device(
    asked: str,
    *,
    environ: Mapping[str, str] = os.environ,
    build: Build | None = None,
    driver: Driver | str | None = None,
) -> str:
    """`auto` as `cuda` or `cpu`; anything else as it is, but BadRequest for a CUDA that cannot be used here.

    Where `auto` comes to the CPU although there is a GPU, stderr says why, once. `build` and `driver` are this
    machine's where they are not given.
    """
    if asked == "cpu":
        return asked
    lack = what_cuda_lacks(asked, environ, build or installed_build(), driver)
    if asked == "auto":
        if lack is not None and lack.surprising:
            say_once(f"device=auto uses the CPU: {lack.what}; {lack.instead}")
        return "cpu" if lack else "cuda"
    if lack is not None:
        instead = f"{lack.instead}, or use device=cpu" if lack.instead else ELSE
        raise BadRequest(f"device={asked} was asked for, and {lack.what}: {instead}")
    return asked


def left_to_the_job(asked: str, launcher: str) -> str:
    """The device of runs on other machines: as it was asked for, whatever is here. BadRequest for `auto`.

    The device is part of what a run is, and decided before its job starts: this machine cannot know what theirs have.
    """
    if asked == "auto":
        raise BadRequest(
            f"device=auto is decided by the machine it is typed on, and the jobs of hydra/launcher={launcher} run on "
            "others: add device=cuda or device=cpu"
        )
    return asked


def what_cuda_lacks(asked: str, environ: Mapping[str, str], build: Build, driver: Driver | str | None) -> Lack | None:
    """Why the CUDA device that was asked for cannot be used, as far as it can be known without PyTorch; else None."""
    if build.hip:
        return _lack_of_amd(environ)
    hidden = entries(environ.get(VISIBLE)) == []
    if hidden and not (environ[VISIBLE] or "").startswith("NoDevFiles"):
        return Lack(f"{VISIBLE}={environ[VISIBLE]} hides every device", f"unset {VISIBLE}")
    found = read_driver() if driver is None else driver
    if not build.cuda:
        there = isinstance(found, Driver) and bool(found.gpus)
        what = "the installed PyTorch is a build without CUDA"
        return Lack(what, "install one for this GPU (https://pytorch.org/get-started/locally)" if there else "", there)
    if isinstance(found, str) or not found.gpus:
        return Lack("no NVIDIA driver answers with a device here")
    return _lack_of_nvidia(asked, environ, build, found)


def _lack_of_nvidia(asked: str, environ: Mapping[str, str], build: Build, driver: Driver) -> Lack | None:
    seen = visible(driver, environ)
    if not seen.devices:
        return Lack(seen.why_none, _to_be_given_one(seen), surprising=True)
    if driver.cuda is not None and driver.cuda[0] < build.cuda_major:
        newest = ".".join(map(str, driver.cuda))
        return Lack(
            f"its driver {driver.version} supports CUDA {newest} and PyTorch is built for CUDA {build.cuda}",
            f"update the driver, or install a PyTorch built for CUDA {driver.cuda[0]}",
            surprising=True,
        )
    index = int(asked.partition(":")[2] or 0)
    if index >= len(seen.devices):
        there = "cuda:0 alone" if len(seen.devices) == 1 else f"cuda:0 to cuda:{len(seen.devices) - 1}"
        return Lack(f"this machine shows {there}", "use one of those", surprising=True)
    candidates = [seen.devices[index]] if ":" in asked and seen.sure else list(seen.devices)
    reasons = [unusable(gpu) for gpu in candidates]
    if all(reasons):
        return Lack(reasons[0], "wait for it, or allow more with `nvidia-smi -c DEFAULT`", surprising=True)
    return None


def _to_be_given_one(seen: Visible) -> str:
    if "batch system" in seen.why_none:
        return "ask it for one, as with --gres=gpu:1"
    if "MIG" in seen.why_none:
        return "make an instance (nvidia-smi mig -cgi ... -C)"
    return f"name one that is there in {VISIBLE}"


def _lack_of_amd(environ: Mapping[str, str]) -> Lack | None:
    """Its devices are not counted here, where NVML knows none of them: the child does it."""
    for variable in HIDING:
        if environ.get(variable, "0").strip() in ("", "-1"):
            return Lack(f"{variable}={environ[variable]} hides every device", f"unset {variable}")
    if not AMD_DRIVER.exists():
        return Lack(f"PyTorch is built for AMD GPUs, and no driver of theirs is here ({AMD_DRIVER})")
    return None


@functools.cache
def say_once(text: str) -> None:
    """`text` on stderr, unless this process said it before."""
    sys.stderr.write(text + "\n")
