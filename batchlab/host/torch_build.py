"""The GPU platform of the installed PyTorch, read from its version file, without importing it."""

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Build:
    """The GPU platforms that a build of PyTorch supports."""

    cuda: str = ""  # "13.2"; empty: no NVIDIA support
    hip: str = ""  # "7.1.52802"; empty: no AMD support (AMD devices are called `cuda` in PyTorch too)

    @property
    def cuda_major(self) -> int:
        """The major version of CUDA that the driver must support; any minor version works."""
        return int(self.cuda.split(".")[0] or 0)


def installed_build() -> Build:
    """The build of the PyTorch that would be imported; without PyTorch, a build without GPUs."""
    spec = importlib.util.find_spec("torch")  # finds, does not import
    if spec is None or spec.origin is None:
        return Build()
    version = Path(spec.origin).with_name("version.py")
    return build_of(version.read_text(encoding="utf-8")) if version.is_file() else Build()


def build_of(text: str) -> Build:
    """Parses `text`, the content of `torch/version.py`."""
    return Build(*(_value(text, name) for name in ("cuda", "hip")))


def _value(text: str, name: str) -> str:
    found = re.search(rf"^{name}\b[^=\n]*=\s*['\"]([\d.]+)[^'\"\n]*['\"]", text, re.MULTILINE)
    return found[1] if found else ""
