"""What the installed PyTorch is built for, read from its version file: it is not imported."""

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Build:
    """The platforms of GPUs that a build of PyTorch has kernels for."""

    cuda: str = ""  # "13.2"; empty: not NVIDIA's
    hip: str = ""  # "7.1.52802"; empty: not AMD's, whose devices are called `cuda` in PyTorch as well

    @property
    def cuda_major(self) -> int:
        """The CUDA that its driver must support; any minor version of it will do."""
        return int(self.cuda.split(".")[0] or 0)


def installed_build() -> Build:
    """Of the PyTorch that would be imported; for none the one without GPUs."""
    spec = importlib.util.find_spec("torch")  # finds, does not import
    if spec is None or spec.origin is None:
        return Build()
    version = Path(spec.origin).with_name("version.py")
    return build_of(version.read_text(encoding="utf-8")) if version.is_file() else Build()


def build_of(text: str) -> Build:
    """`text` is that of `torch/version.py`."""
    return Build(*(_value(text, name) for name in ("cuda", "hip")))


def _value(text: str, name: str) -> str:
    found = re.search(rf"^{name}\b[^=\n]*=\s*['\"]([\d.]+)[^'\"\n]*['\"]", text, re.MULTILINE)
    return found[1] if found else ""
