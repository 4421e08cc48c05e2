# ruff: noqa: N801, N802, N816, N818 - pynvml's own names
"""NVML, as it would answer on the machine that the environment names (`faked_cuda.environment`).

Every function that is not here raises AttributeError: add it when somebody asks for it.
"""

import json
import os
from types import SimpleNamespace


class NVMLError(Exception):
    """What every failure is."""


class NVMLError_NotFound(NVMLError):
    """No such device."""


def _machine() -> dict:
    return json.loads(os.environ["BATCHLAB_TESTS_CUDA"])


def _uuid(number: int) -> str:
    return f"GPU-00000000-0000-4000-8000-{number:012d}"


def nvmlInit() -> None:
    pass


def nvmlShutdown() -> None:
    pass


def nvmlSystemGetDriverVersion() -> str:
    return "999.99"


def nvmlSystemGetCudaDriverVersion() -> int:
    return 99090


nvmlSystemGetCudaDriverVersion_v2 = nvmlSystemGetCudaDriverVersion


def nvmlDeviceGetCount() -> int:
    return int(_machine().get("count", 1))


def nvmlDeviceGetHandleByIndex(index: int) -> int:
    if not 0 <= index < nvmlDeviceGetCount():
        raise NVMLError_NotFound
    return index


def nvmlDeviceGetHandleByUUID(uuid: str | bytes) -> int:
    text = uuid.decode() if isinstance(uuid, bytes) else uuid
    for number in range(nvmlDeviceGetCount()):
        if text == _uuid(number):
            return number
    raise NVMLError_NotFound


def nvmlDeviceGetUUID(handle: int) -> str:
    return _uuid(handle)


def nvmlDeviceGetName(handle: int) -> str:
    name = _machine().get("name", "Simulated GPU")
    return name if isinstance(name, str) else name[handle]


def nvmlDeviceGetMemoryInfo(handle: int) -> SimpleNamespace:
    del handle
    total = int(_machine().get("total_bytes", 8 * 2**30))
    used = int(_machine().get("others_bytes", 0))
    return SimpleNamespace(total=total, used=used, free=total - used)


def nvmlDeviceGetComputeRunningProcesses(handle: int) -> list[SimpleNamespace]:
    del handle
    return [SimpleNamespace(pid=pid) for pid in _machine().get("processes", [])]


def nvmlDeviceGetMigMode(handle: int) -> tuple[int, int]:
    del handle
    return 0, 0


def nvmlDeviceGetComputeMode(handle: int) -> int:
    del handle
    return int(_machine().get("compute_mode", 0))
