"""What the parent of a sweep may know of the device: it touches none, and imports no torch."""

import importlib.util
import os
import re
from pathlib import Path


def resolve_device(asked: str) -> str:
    """`auto` as `cuda` or `cpu`; anything else as it is.

    CUDA is taken where the installed PyTorch is a CUDA build (read from its version file), the environment does not
    hide all devices, and the driver answers with at least one. The preflight child checks it with PyTorch itself.
    """
    if asked != "auto":
        return asked
    return "cuda" if _torch_has_cuda() and _visible() and _driver_devices() > 0 else "cpu"


def _torch_has_cuda() -> bool:
    spec = importlib.util.find_spec("torch")  # finds, does not import
    if spec is None or spec.origin is None:
        return False
    version = Path(spec.origin).with_name("version.py")
    return bool(re.search(r"^cuda\b[^=]*=\s*'[\d.]+'", version.read_text(), re.MULTILINE)) if version.is_file() else False


def _visible() -> bool:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() not in ("", "-1")


def _driver_devices() -> int:
    import pynvml

    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0
