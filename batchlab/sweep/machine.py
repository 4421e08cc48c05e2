"""What the parent of a sweep may know of the device: it touches none, and imports no torch."""

import importlib.util
import os
import re
from pathlib import Path

from batchlab.config import RunConfig
from batchlab.errors import BadRequest
from batchlab.printable import counted


def resolve_device(asked: str) -> str:
    """`auto` as `cuda` or `cpu`; anything else as it is, but BadRequest for a CUDA that cannot be here.

    CUDA is there where the installed PyTorch is a CUDA build (read from its version file), the environment does not
    hide all devices, and the driver answers with at least one. The preflight child asks PyTorch itself.
    """
    if asked == "cpu":
        return asked
    lacking = _what_cuda_lacks()
    if asked == "auto":
        return "cpu" if lacking else "cuda"
    if lacking:
        raise BadRequest(
            f"device={asked} was asked for, and {lacking}: "
            "use device=cpu, or device=auto to take CUDA where there is one"
        )
    return asked


def _what_cuda_lacks() -> str:
    """Why there is no CUDA here, or an empty text."""
    if not _torch_has_cuda():
        return "the installed PyTorch is a build without CUDA"
    if not _visible():
        return "CUDA_VISIBLE_DEVICES hides every device"
    return "" if _driver_devices() > 0 else "no NVIDIA driver answers with a device here"


def _torch_has_cuda() -> bool:
    spec = importlib.util.find_spec("torch")  # finds, does not import
    if spec is None or spec.origin is None:
        return False
    version = Path(spec.origin).with_name("version.py")
    return (
        bool(re.search(r"^cuda\b[^=]*=\s*'[\d.]+'", version.read_text(), re.MULTILINE)) if version.is_file() else False
    )


def _visible() -> bool:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() not in ("", "-1")


def _driver_devices() -> int:
    import pynvml

    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0


def device_names() -> list[str]:
    """`cuda:0`, `cuda:1`, ...: the devices that PyTorch will number so, by the driver and the environment."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = _driver_devices() if visible is None else len([name for name in visible.split(",") if name.strip()])
    return [f"cuda:{index}" for index in range(count)]


def check_room(config: RunConfig) -> None:
    """BadRequest where `jobs` points at once would need more cores or more devices than there are."""
    jobs = config.jobs
    if jobs == 1:
        return
    if config.device.startswith("cuda"):
        if config.device != "cuda" or len(device_names()) < jobs:
            raise BadRequest(
                f"jobs={jobs} points at once need a GPU each, and device={config.device} is "
                f"{'one' if config.device != 'cuda' else counted(len(device_names()), 'device')} here: use jobs=1"
            )
        return
    cores = len(os.sched_getaffinity(0))
    if jobs * config.threads > cores:
        most = cores // config.threads
        raise BadRequest(
            f"jobs={jobs} points at once with threads={config.threads} need {jobs * config.threads} cores, and this "
            f"machine has {cores}: use jobs={max(1, most)}"
        )
