"""The environment of a run, from an allow-list: enough to explain a number, nothing that names a person or a machine.

A GPU's UUID identifies a machine, so only a hash of it is recorded: it distinguishes the GPUs of a study and cannot be
looked up.
"""

import fnmatch
import hashlib
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from batchlab.recording.masking import masked

PACKAGES = ("batchlab", "torch", "torchvision", "numpy", "hydra-core", "omegaconf", "tensorboard")
VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "PYTORCH_*ALLOC_CONF",
    "CUBLAS_WORKSPACE_CONFIG",
    "NCCL_*",
    "SLURM_JOB_ID",
    "SLURM_ARRAY_*",
)
UUID = re.compile(r"\b(GPU-|MIG-)[\w/-]+")


def environment(device: Mapping[str, Any] | None = None, *, code: Path | None = None) -> dict[str, Any]:
    """Versions, processor, memory in bytes, selected variables, and the git commit of the folder `code`.

    `device` holds what only the caller can know, such as the device's name; its `device_uuid` and UUIDs in
    CUDA_VISIBLE_DEVICES are hashed in the same way. Unknown facts are left out.
    """
    facts = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version for name in PACKAGES if (version := installed_version(name))},
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": int(psutil.virtual_memory().total),
        "variables": masked({name: _hashed(value) for name, value in sorted(os.environ.items()) if _is_allowed(name)}),
        "git_commit": _git_commit(code) if code else None,
    }
    given = {name: _hashed(fact) if name == "device_uuid" else fact for name, fact in (device or {}).items()}
    return {name: fact for name, fact in (facts | masked(given)).items() if fact is not None}


def _hashed(text: Any) -> Any:
    """`text` with each GPU UUID replaced by a hash such as `GPU-1a2b3c4d`."""
    if not isinstance(text, str):
        return text
    return UUID.sub(lambda found: found[1] + hashlib.sha256(found[0].encode()).hexdigest()[:8], text)


def _is_allowed(variable: str) -> bool:
    return any(fnmatch.fnmatchcase(variable, pattern) for pattern in VARIABLES)


def installed_version(package: str) -> str | None:
    """A distribution's version, read from its metadata and not by importing it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cpu_name() -> str | None:
    """The processor's model, or its architecture if the system does not report the model."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor() or None
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine() or None)


def _git_commit(folder: Path) -> str | None:
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--verify", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=2, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None
