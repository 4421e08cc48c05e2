"""The NVIDIA GPUs of this machine, as the driver's management library (NVML) reports them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MODES = {0: "default", 1: "exclusive", 2: "prohibited", 3: "exclusive"}  # of computing; 1 is of drivers before 2012

Api = Any  # the module pynvml, or what a test puts in its place


@dataclass(frozen=True)
class Gpu:
    """A GPU, or one MIG instance of one: what CUDA shows as a device."""

    uuid: str  # "GPU-..." or "MIG-..."
    name: str  # as PyTorch says it
    total_bytes: int | None = None
    used_bytes: int | None = None
    mode: str = "default"  # "exclusive": one process at a time; "prohibited": none
    processes: tuple[int, ...] | None = ()  # that compute on it; None where the driver does not say
    mig: bool = False  # whether it is divided: then only its instances can be used
    instances: tuple["Gpu", ...] = ()


@dataclass(frozen=True)
class Driver:
    """The driver and the GPUs that this process may use, in the order of their PCI addresses."""

    version: str
    cuda: tuple[int, int] | None  # the newest CUDA it supports
    gpus: tuple[Gpu, ...]


def read_driver(api: Api | None = None) -> Driver | str:
    """What NVML reports now, or why it does not answer.

    NVML stays initialised: without a persistence daemon the driver would unload when its last user leaves, and each
    point would wait for it to load again.
    """
    api = api or _pynvml()
    try:
        api.nvmlInit()
        count = int(api.nvmlDeviceGetCount())
    except api.NVMLError as error:
        return str(error)
    # A GPU that a batch system keeps from this job is counted and refused; CUDA does not count it.
    handles = [_asked(api, api.nvmlDeviceGetHandleByIndex, i) for i in range(count)]
    found = [_gpu(api, handle) for handle in handles if handle is not None]
    version = _asked(api, api.nvmlSystemGetDriverVersion)
    return Driver(str(version or "unknown"), _newest_cuda(api), tuple(gpu for gpu in found if gpu is not None))


def computing_on(uuid: str, api: Api | None = None) -> frozenset[int] | None:
    """The processes that compute on a GPU now, by the host's numbers; None where the driver does not say."""
    api = api or _pynvml()
    handle = _handle(api, uuid)
    return None if handle is None else _processes(api, handle)


def used_bytes(uuid: str, api: Api | None = None) -> int | None:
    """Bytes in use on a GPU now, by all programs; None where the driver does not say.

    `uuid` as PyTorch gives it, with or without "GPU-" or "MIG-" before it: NVML numbers all devices of the machine,
    CUDA only the visible ones, so an index would not do.
    """
    api = api or _pynvml()
    handle = _handle(api, uuid)
    memory = None if handle is None else _asked(api, api.nvmlDeviceGetMemoryInfo, handle)
    return None if memory is None else int(memory.used)


def process_bytes(uuid: str, pid: int, api: Api | None = None) -> int | None:
    """Bytes that one process has on a GPU, context and libraries included; None where the driver does not say.

    In a container the driver may list processes by numbers that mean others in here: one that is alone is meant.
    """
    api = api or _pynvml()
    handle = _handle(api, uuid)
    listed = [] if handle is None else _asked(api, api.nvmlDeviceGetComputeRunningProcesses, handle) or []
    meant = [process for process in listed if int(process.pid) == pid or len(listed) == 1]
    used = getattr(meant[0], "usedGpuMemory", None) if meant else None
    return None if used is None else int(used)


def full_uuid(uuid: str, api: Api | None = None) -> str:
    """`uuid` of PyTorch as NVML knows it: it calls a MIG instance `MIG-...`; as it is where the driver knows none."""
    api = api or _pynvml()
    handle = _handle(api, uuid.removeprefix("GPU-"))
    return str((None if handle is None else _asked(api, api.nvmlDeviceGetUUID, handle)) or uuid)


def _pynvml() -> Api:
    import pynvml

    return pynvml


def _handle(api: Api, uuid: str) -> Any:
    names = [uuid] if uuid.startswith(("GPU-", "MIG-")) else [f"GPU-{uuid}", f"MIG-{uuid}"]
    if _asked(api, lambda: (api.nvmlInit(), True)) is None:
        return None
    handles = (_asked(api, api.nvmlDeviceGetHandleByUUID, name) for name in names)
    return next((handle for handle in handles if handle is not None), None)


def _gpu(api: Api, handle: Any, mode: str | None = None) -> Gpu | None:
    """None where it does not even say which it is: a GPU that fell off the bus, or another job's."""
    uuid = _asked(api, api.nvmlDeviceGetUUID, handle)
    if uuid is None:
        return None
    memory = _asked(api, api.nvmlDeviceGetMemoryInfo, handle)
    processes = _processes(api, handle)
    mode = mode or MODES.get(_asked(api, api.nvmlDeviceGetComputeMode, handle) or 0, "default")
    divided = bool((_asked(api, api.nvmlDeviceGetMigMode, handle) or [0])[0])
    return Gpu(
        uuid=str(uuid),
        name=str(_asked(api, api.nvmlDeviceGetName, handle) or "an NVIDIA GPU"),
        total_bytes=None if memory is None else int(memory.total),
        used_bytes=None if memory is None else int(memory.used),
        mode=mode,
        processes=None if processes is None else tuple(sorted(processes)),
        mig=divided,
        instances=_instances(api, handle, mode) if divided else (),
    )


def _instances(api: Api, parent: Any, mode: str) -> tuple[Gpu, ...]:
    most = _asked(api, api.nvmlDeviceGetMaxMigDeviceCount, parent) or 0
    handles = [_asked(api, api.nvmlDeviceGetMigDeviceHandleByIndex, parent, i) for i in range(int(most))]
    found = [_gpu(api, handle, mode) for handle in handles if handle is not None]
    return tuple(gpu for gpu in found if gpu is not None)


def _processes(api: Api, handle: Any) -> frozenset[int] | None:
    listed = _asked(api, api.nvmlDeviceGetComputeRunningProcesses, handle)
    return None if listed is None else frozenset(int(process.pid) for process in listed)


def _newest_cuda(api: Api) -> tuple[int, int] | None:
    # The second counts a newer libcuda.so beside the driver (NVIDIA's forward compatibility), where there is one.
    answers = [
        _asked(api, api.nvmlSystemGetCudaDriverVersion),
        _asked(api, api.nvmlSystemGetCudaDriverVersion_v2),
    ]
    newest = max((int(answer) for answer in answers if answer is not None), default=0)
    return (newest // 1000, newest % 1000 // 10) if newest else None


def _asked(api: Api, question: Callable[..., Any], *about: Any) -> Any:
    """The answer, or None: every question may be refused, by an old driver, a container, WSL or a batch system."""
    try:
        return question(*about)
    except api.NVMLError:
        return None
