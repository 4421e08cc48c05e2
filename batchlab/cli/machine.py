"""Facts about this machine that can be read without PyTorch."""

import os
import platform
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from batchlab.config_folder import config_folder
from batchlab.host.nvml import Driver, Gpu
from batchlab.printable import counted
from batchlab.recording.environment import cpu_name, installed_version
from batchlab.records import Unknown

GIB = 2**30
LEAST_DISK = 100 * 2**20  # bytes; a study of small runs takes a few MiB, its checkpoints more
LITTLE_DISK = GIB
LISTED = ("hydra-core", "omegaconf", "tensorboard", "numpy")  # torch and torchvision are imported to be sure


@dataclass
class Findings:
    """What was found, in the order of display; a problem says whether it prevents running."""

    facts: dict[str, dict[str, str]] = field(default_factory=dict)
    problems: list[tuple[bool, str]] = field(default_factory=list)

    def fact(self, section: str, name: str, value: str) -> None:
        self.facts.setdefault(section, {})[name] = value

    def problem(self, prevents: bool, what: str) -> None:
        self.problems.append((prevents, what))


def read_software(found: Findings) -> None:
    """Versions, and whether they are those that batchlab requires."""
    from batchlab import __version__

    found.fact("Software", "python", f"{platform.python_version()} ({sys.executable})")
    found.fact("Software", "batchlab", f"{__version__} ({Path(__file__).parents[1]})")
    for name in LISTED:
        found.fact("Software", name, installed_version(name) or "not installed")
    for prevents, what in check_requirements(requirements()):
        found.problem(prevents, what)


def requirements() -> list[str]:
    """The requirements of batchlab, from its installation or from the checkout's `pyproject.toml`."""
    try:
        return [line for line in metadata.requires("batchlab") or [] if "extra ==" not in line]
    except metadata.PackageNotFoundError:
        import tomllib

        file = config_folder().parent / "pyproject.toml"
        return (
            list(tomllib.loads(file.read_text(encoding="utf-8"))["project"]["dependencies"]) if file.is_file() else []
        )


def check_requirements(lines: Iterable[str]) -> list[tuple[bool, str]]:
    """The requirements in `lines` that are not fulfilled; a missing package prevents running."""
    from packaging.requirements import Requirement

    problems = []
    for line in lines:
        needed = Requirement(line)
        version = installed_version(needed.name)
        if version is None:
            problems.append((True, f"{needed.name} is not installed: pip install '{needed}'"))
        elif not needed.specifier.contains(version, prereleases=True):
            problems.append((False, f"{needed.name} {version} is installed, but batchlab requires '{needed}'"))
    return problems


def read_machine(found: Findings, runs_dir: Path) -> None:
    """CPU, memory and disk."""
    import psutil

    memory = psutil.virtual_memory()
    usable, cores = len(os.sched_getaffinity(0)), psutil.cpu_count(logical=False)
    found.fact("Machine", "system", platform.platform())
    found.fact("Machine", "CPU", cpu_name() or "unknown")
    found.fact(
        "Machine",
        "CPU threads",
        f"{usable} usable of {os.cpu_count()}" + (f", on {cores} cores" if cores else "") + _quota(),
    )
    load = os.getloadavg()[0]
    found.fact("Machine", "load", f"{load:.1f} over the last minute")
    if load > usable / 2:
        found.problem(False, f"the machine is busy (load {load:.1f} on {usable} CPUs): speeds measured now will vary")
    found.fact("Machine", "memory", f"{memory.total / GIB:.1f} GiB, {memory.available / GIB:.1f} available{_limit()}")
    if Path("/dev/shm").is_dir():
        found.fact("Machine", "/dev/shm", f"{shutil.disk_usage('/dev/shm').free / GIB:.1f} GiB free")
    read_disk(found, runs_dir)


def read_disk(found: Findings, runs_dir: Path) -> None:
    """Whether runs can be written to their folder."""
    there = next(folder for folder in (runs_dir.absolute(), *runs_dir.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    found.fact("Machine", "disk", f"{free / GIB:.1f} GiB free in {there}")
    if not os.access(there, os.W_OK):
        found.problem(True, f"runs cannot be written to {there}: give another folder with runs_dir=...")
    if free < LITTLE_DISK:
        found.problem(
            free < LEAST_DISK, f"only {free / 2**20:.0f} MiB are free in {there}: give runs_dir=... on another disk"
        )


def read_nvidia(found: Findings, driver: Driver | Unknown) -> int:
    """The NVIDIA driver and its GPUs, as NVML reports them; how many there are."""
    if isinstance(driver, Unknown):
        devices = sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*"))
        found.fact("NVIDIA", "driver", f"none that responds ({driver})")
        if devices:
            found.problem(False, f"there is /dev/{devices[0]}, but its driver does not respond: {driver}")
        return 0
    newest = "" if driver.cuda is None else f", for CUDA up to {driver.cuda[0]}.{driver.cuda[1]}"
    found.fact("NVIDIA", "driver", f"{driver.version}{newest}")
    for index, gpu in enumerate(driver.gpus):
        found.fact("NVIDIA", f"GPU {index}", _gpu(gpu))
        for place, part in enumerate(gpu.instances):
            found.fact("NVIDIA", f"GPU {index}, MIG {place}", _gpu(part))
    return len(driver.gpus)


def _gpu(gpu: Gpu) -> str:
    parts = [gpu.name]
    if gpu.total_bytes is not None and gpu.used_bytes is not None:
        parts += [f"{gpu.total_bytes / GIB:.1f} GiB", f"{gpu.used_bytes / GIB:.1f} in use"]
    if gpu.processes:
        parts.append(f"{counted(len(gpu.processes), 'program')} computing on it")
    if gpu.mode != "default":
        parts.append(f"compute mode {gpu.mode}")
    if gpu.mig:
        parts.append(f"divided by MIG into {counted(len(gpu.instances), 'instance')}")
    return ", ".join(parts)


def _quota() -> str:
    """A container's CPU quota, which the number of cores does not show."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return ""
    return "" if quota == "max" else f", {int(quota) / int(period):g} of them at a time by its cgroup"


def _limit() -> str:
    """A container's memory limit, above which the kernel kills processes."""
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
    return f", limited to {int(limit) / GIB:.1f} GiB by its cgroup" if limit.isdigit() else ""
