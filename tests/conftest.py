"""What every test may ask for."""

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from sweep_runs import Lab

from batchlab.sweep.frozen_imports import frozen_imports
from batchlab.sweep.server import WarmServer

# No deadline: two slow cores are no bug. The same examples on every machine: a red test is red for everybody.
settings.register_profile("batchlab", deadline=None, derandomize=True)
settings.load_profile("batchlab")

# Test files run side by side: PyTorches with a thread for each core would wait for one another. Read when PyTorch is
# first imported; a run sets its own number.
os.environ.setdefault("OMP_NUM_THREADS", "1")


# They start many processes, and take longest: begun last, one of them would keep the others' cores idle at the end.
LONGEST_FILES = (
    "test_end_to_end.py",
    "test_torture.py",
    "test_readme.py",
    "test_other_launchers.py",
    "test_scripts.py",
    "test_supervisor.py",
    "test_architecture.py",
    "test_find.py",
    "test_knobs_are_honoured.py",
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
    """What else runs on this machine shares no lease with the tests: their points would be marked as having company."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("leases")))
        yield


@pytest.fixture(autouse=True)
def alike_in_any_order() -> None:
    """A test's weights and draws are its own, whatever ran before it in this process."""
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
    """One warm server for all tests that run points: it costs 10 s, a point then 0.3 s."""
    with WarmServer() as warm:
        yield warm


@pytest.fixture
def lab(server: WarmServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A laboratory in an empty folder, which is also the current one."""
    monkeypatch.chdir(tmp_path)
    return Lab(server, tmp_path / "runs")
