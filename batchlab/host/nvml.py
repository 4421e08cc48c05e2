"""The NVIDIA GPUs of this machine, as the driver's management library (NVML) reports them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from batchlab.records import Unknown

MODES = {0: "default", 1: "exclusive", 2: "prohibited", 3: "exclusive"}  # 1: drivers before 2012

Api = Any  # the module pynvml, or a fake in tests


@dataclass(frozen=True)
class Gpu:
    """A GPU or a MIG instance: one CUDA device."""

    uuid: str  # "GPU-..." or "MIG-..."
    name: str  # as PyTorch reports it
    total_bytes: int | None = None
    used_bytes: int | None = None
    mode: str = "default"  # "exclusive": one process at a time; "prohibited": none
    processes: tuple[int, ...] | None = ()  # that use it; None if the driver does not report them
    mig: bool = False  # whether it is in MIG mode: then only its instances can be used
    instances: tuple["Gpu", ...] = ()


@dataclass(frozen=True)
class Driver:
    """The driver and the GPUs that this process may use, in the order of their PCI addresses."""

    version: str
    cuda: tuple[int, int] | None  # the newest CUDA it supports
    gpus: tuple[Gpu, ...]


def read_driver(api: Api | None = None) -> Driver | Unknown:
    """What NVML reports now, or its error.

    NVML stays initialised: without a persistence daemon the driver would unload after its last user, and each
    point would wait until it is loaded again.
    """
    api = api or _pynvml()
    try:
        api.nvmlInit()
        count = int(api.nvmlDeviceGetCount())
    except api.NVMLError as error:
        return Unknown(str(error))
    # NVML counts a GPU that belongs to another job of a batch system but refuses access; CUDA does not count it.
    handles = [_query(api, api.nvmlDeviceGetHandleByIndex, i) for i in range(count)]
    found = [_gpu(api, handle) for handle in handles if handle is not None]
    version = _query(api, api.nvmlSystemGetDriverVersion)
    return Driver(str(version or "unknown"), _newest_cuda(api), tuple(gpu for gpu in found if gpu is not None))


def computing_on(uuid: str, api: Api | None = None) -> frozenset[int] | None:
    """The host's ids of the processes that use a GPU now; None if the driver does not report them."""
    api = api or _pynvml()
    handle = _handle(api, uuid)
    return None if handle is None else _processes(api, handle)


def used_bytes(uuid: str, api: Api | None = None) -> int | None:
    """Bytes in use on a GPU now, by all programs; None if the driver does not report it.

    `uuid` as PyTorch gives it, with or without the prefix "GPU-" or "MIG-". An index would be ambiguous: NVML numbers
    all devices of the machine, CUDA only the visible ones.
    """
    api = api or _pynvml()
    handle = _handle(api, uuid)
    memory = None if handle is None else _query(api, api.nvmlDeviceGetMemoryInfo, handle)
    return None if memory is None else int(memory.used)


def process_bytes(uuid: str, pid: int, api: Api | None = None) -> int | None:
    """Bytes that one process uses on a GPU, context and libraries included; None if the driver does not report it.

    In a container the driver may list process ids of the host: then a process that is listed alone is taken.
    """
    api = api or _pynvml()
    handle = _handle(api, uuid)
    listed = [] if handle is None else _query(api, api.nvmlDeviceGetComputeRunningProcesses, handle) or []
    meant = [process for process in listed if int(process.pid) == pid or len(listed) == 1]
    used = getattr(meant[0], "usedGpuMemory", None) if meant else None
    return None if used is None else int(used)


def full_uuid(uuid: str, api: Api | None = None) -> str:
    """PyTorch's `uuid` in NVML's form (`MIG-...` for a MIG instance); unchanged if the driver does not know it."""
    api = api or _pynvml()
    handle = _handle(api, uuid.removeprefix("GPU-"))
    return str((None if handle is None else _query(api, api.nvmlDeviceGetUUID, handle)) or uuid)


def _pynvml() -> Api:
    import pynvml

    return pynvml


def _handle(api: Api, uuid: str) -> Any:
    names = [uuid] if uuid.startswith(("GPU-", "MIG-")) else [f"GPU-{uuid}", f"MIG-{uuid}"]
    if _query(api, lambda: (api.nvmlInit(), True)) is None:
        return None
    handles = (_query(api, api.nvmlDeviceGetHandleByUUID, name) for name in names)
    return next((handle for handle in handles if handle is not None), None)


def _gpu(api: Api, handle: Any, mode: str | None = None) -> Gpu | None:
    """None if its UUID cannot be read: a GPU that fell off the bus, or one of another job."""
    uuid = _query(api, api.nvmlDeviceGetUUID, handle)
    if uuid is None:
        return None
    memory = _query(api, api.nvmlDeviceGetMemoryInfo, handle)
    processes = _processes(api, handle)
    mode = mode or MODES.get(_query(api, api.nvmlDeviceGetComputeMode, handle) or 0, "default")
    divided = bool((_query(api, api.nvmlDeviceGetMigMode, handle) or [0])[0])
    return Gpu(
        uuid=str(uuid),
        name=str(_query(api, api.nvmlDeviceGetName, handle) or "an NVIDIA GPU"),
        total_bytes=None if memory is None else int(memory.total),
        used_bytes=None if memory is None else int(memory.used),
        mode=mode,
        processes=None if processes is None else tuple(sorted(processes)),
        mig=divided,
        instances=_instances(api, handle, mode) if divided else (),
    )


def _instances(api: Api, parent: Any, mode: str) -> tuple[Gpu, ...]:
    most = _query(api, api.nvmlDeviceGetMaxMigDeviceCount, parent) or 0
    handles = [_query(api, api.nvmlDeviceGetMigDeviceHandleByIndex, parent, i) for i in range(int(most))]
    found = [_gpu(api, handle, mode) for handle in handles if handle is not None]
    return tuple(gpu for gpu in found if gpu is not None)


def _processes(api: Api, handle: Any) -> frozenset[int] | None:
    listed = _query(api, api.nvmlDeviceGetComputeRunningProcesses, handle)
    return None if listed is None else frozenset(int(process.pid) for process in listed)


def _newest_cuda(api: Api) -> tuple[int, int] | None:
    # The second includes a newer libcuda.so next to the driver (NVIDIA's forward compatibility), if there is one.
    versions = [
        _query(api, api.nvmlSystemGetCudaDriverVersion),
        _query(api, api.nvmlSystemGetCudaDriverVersion_v2),
    ]
    newest = max((int(version) for version in versions if version is not None), default=0)
    return (newest // 1000, newest % 1000 // 10) if newest else None


def _query(api: Api, function: Callable[..., Any], *arguments: Any) -> Any:
    """The result, or None: old drivers, containers, WSL and batch systems may refuse any query."""
    try:
        return function(*arguments)
    except api.NVMLError:
        return None
