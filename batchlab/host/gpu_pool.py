"""The GPUs that a sweep may assign to its points, one to each."""

import os
from collections.abc import Mapping, Sequence

from batchlab.config import RunConfig
from batchlab.errors import BadRequest
from batchlab.host.neighbours import Listed, own_family
from batchlab.host.nvml import Driver, Gpu, computing_on, read_driver
from batchlab.host.visible import ORDER, VISIBLE, instances, let_through, visible
from batchlab.printable import counted
from batchlab.records import Unknown


def unusable(gpu: Gpu) -> str:
    """Why no new process can use a GPU now; empty if one can."""
    if gpu.mode == "prohibited":
        return f"{gpu.name} ({gpu.uuid}) is in compute mode prohibited"
    if gpu.mode == "exclusive" and gpu.processes:
        return f"{gpu.name} ({gpu.uuid}) is in exclusive mode and used by process {gpu.processes[0]}"
    return ""


def gpus_for(
    config: RunConfig, jobs: int, *, environ: Mapping[str, str] = os.environ, driver: Driver | Unknown | None = None
) -> tuple[Gpu, ...]:
    """The GPUs for points of `config`; the first also runs the checks before them. Empty: CUDA chooses.

    For `jobs` points at once: the usable GPUs that CUDA_VISIBLE_DEVICES allows, all of one model if there are enough
    of it. For one point at a time: CUDA's first device, which is named only if it cannot be used.
    BadRequest if `jobs` points need more GPUs or more cores than there are.
    """
    if not config.device.startswith("cuda"):
        _check_cores(config, jobs)
        return ()
    if config.device != "cuda":
        if jobs > 1:
            raise BadRequest(_too_few(config, jobs, "one"))
        return ()
    found = read_driver() if driver is None else driver
    if isinstance(found, Unknown):
        if jobs > 1:
            raise BadRequest(_too_few(config, jobs, f"not counted here ({found})"))
        return ()
    if jobs == 1:
        seen = visible(found, environ)
        usable = [gpu for gpu in seen.devices if not unusable(gpu)]
        return _of_one_model(usable, 1) if usable and unusable(seen.devices[0]) else ()
    allowed, sure = let_through(found, environ)
    usable = [gpu for gpu in (*instances(allowed), *_whole(allowed)) if not unusable(gpu)]
    if len(usable) < jobs:
        raise BadRequest(_too_few(config, jobs, counted(len(usable), "device"), most=len(usable)))
    if VISIBLE in environ and not sure and len(models(allowed)) > 1:
        raise BadRequest(
            f"{VISIBLE}={environ[VISIBLE]} selects GPUs of several models by index, and the index depends on {ORDER}: "
            f"set {ORDER}=PCI_BUS_ID, or use their UUIDs (nvidia-smi -L)"
        )
    return _of_one_model(usable, jobs)


def without_other_programs(gpus: Sequence[Gpu], *, listed: Listed = computing_on) -> list[Gpu]:
    """Those that no other program uses now; a GPU counts as free if the driver does not list its processes."""
    found = [(gpu, listed(gpu.uuid) or frozenset()) for gpu in gpus]
    if not any(processes for _, processes in found):
        return list(gpus)
    family = own_family()
    return [gpu for gpu, processes in found if not processes - family]


def models(gpus: Sequence[Gpu]) -> list[str]:
    """The names of the models, each once."""
    return list(dict.fromkeys(gpu.name for gpu in gpus))


def _whole(gpus: Sequence[Gpu]) -> list[Gpu]:
    return [gpu for gpu in gpus if not gpu.mig and gpu not in instances([gpu])]


def _of_one_model(gpus: Sequence[Gpu], jobs: int) -> tuple[Gpu, ...]:
    kinds = [tuple(gpu for gpu in gpus if gpu.name == name) for name in models(gpus)]
    return next((kind for kind in kinds if len(kind) >= jobs), tuple(gpus))


def _too_few(config: RunConfig, jobs: int, there: str, *, most: int = 1) -> str:
    needed = f"jobs={jobs} needs {jobs} GPUs, one for each point, but device={config.device} is {there} here"
    return f"{needed}: use jobs={max(1, most)}"


def _check_cores(config: RunConfig, jobs: int) -> None:
    cores = len(os.sched_getaffinity(0))
    if jobs > 1 and jobs * config.threads > cores:
        most = cores // config.threads
        raise BadRequest(
            f"jobs={jobs} with threads={config.threads} needs {jobs * config.threads} "
            f"cores, but this machine has {cores}: use jobs={max(1, most)}"
        )
