"""Fixtures for all tests."""

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from sweep_runs import Lab

from batchlab.sweep.processes.server import WarmServer
from batchlab.worker.frozen_imports import frozen_imports

# No deadline, because slow cores are not a bug. The same examples on every machine, so that failures are reproducible.
settings.register_profile("batchlab", deadline=None, derandomize=True)
settings.load_profile("batchlab")

# Test files run in parallel: with a PyTorch thread per core in each they would wait for each other. Read when PyTorch
# is first imported; a run sets its own number.
os.environ.setdefault("OMP_NUM_THREADS", "1")


# They start many processes and take longest: started last, one of them would leave the other cores idle at the end.
LONGEST_FILES = (
    "test_end_to_end.py",
    "test_torture.py",
    "test_readme.py",
    "test_other_launchers.py",
    "test_scripts.py",
    "test_supervisor.py",
    "test_architecture.py",
    "test_find.py",
    "test_options_are_honoured.py",
    "test_report_files.py",
    "test_memory_of_a_simulated_gpu.py",
)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collection imports all test modules, and with them PyTorch and SciPy."""
    with frozen_imports():
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; scripts/test tells pytest-xdist to keep that order."""
    turns = {name: turn for turn, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: turns.get(item.path.name, len(turns)))


@pytest.fixture(scope="session", autouse=True)
def leases_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Separate leases, so that other processes on this machine do not mark the tests' points as sharing a device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("leases")))
        yield


@pytest.fixture(autouse=True)
def alike_in_any_order() -> None:
    """Seeds PyTorch, so that a test's weights and draws do not depend on earlier tests."""
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def server() -> Iterator[WarmServer]:
    """One warm server for all tests that run points: it takes 10 s, and then 0.3 s per point."""
    with WarmServer() as warm:
        yield warm


@pytest.fixture
def lab(server: WarmServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A `Lab` in an empty folder, which is also the current one."""
    monkeypatch.chdir(tmp_path)
    return Lab(server, tmp_path / "runs")
