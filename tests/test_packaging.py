"""The wheel holds what a user needs, and sweeps from a folder that has never seen the checkout."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import batchlab


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the installed hatchling, so that no network is needed."""
    folder = tmp_path_factory.mktemp("dist")
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked: for one of pure Python that is what installing means."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def python(*arguments: str, installed: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs the unpacked copy: PYTHONPATH comes before site-packages, and so before an editable install."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def test_the_wheel_holds_package_configs_and_types_and_nothing_else(wheel: Path, repository: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())

    configs = {
        f"batchlab/configs/{path.relative_to(repository / 'configs')}" for path in repository.glob("configs/**/*.yaml")
    }
    modules = {str(path.relative_to(repository)) for path in repository.glob("batchlab/**/*.py")}
    assert {name.partition("/")[0] for name in names} == {"batchlab", f"batchlab-{batchlab.__version__}.dist-info"}
    assert len(configs) > 5
    page = {"batchlab/report/render/report.html.j2", "batchlab/report/render/report.css"}
    assert configs | modules | page | {"batchlab/py.typed"} <= names
    assert [name for name in names if "__pycache__" in name or name.endswith(".pyc")] == []


def test_the_wheel_says_its_name_and_its_version(installed: Path, tmp_path: Path) -> None:
    done = python("-m", "batchlab.cli.main", "--version", installed=installed, cwd=tmp_path)

    assert (done.returncode, done.stdout.split()[:2]) == (0, ["batchlab", batchlab.__version__]), done.stderr


def test_the_wheel_sweeps_from_another_folder(installed: Path, tmp_path: Path) -> None:
    where = python("-c", "import batchlab; print(batchlab.__file__)", installed=installed, cwd=tmp_path)
    assert Path(where.stdout.strip()) == installed / "batchlab/__init__.py"

    words = ("sweep", "batch_size=256", "default_epochs=1", "device=cpu")
    done = python("-m", "batchlab.cli.main", *words, installed=installed, cwd=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = tmp_path.glob("runs/*/*/record.json")
    assert json.loads(record.read_text())["status"] == "completed"


@pytest.mark.slow
def test_a_lab_is_made_checked_and_swept_from_the_wheel_alone(installed: Path, tmp_path: Path) -> None:
    def batchlab(*words: str, cwd: Path) -> str:
        done = python("-m", "batchlab.cli.main", *words, installed=installed, cwd=cwd)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    lab = tmp_path / "my_lab"
    batchlab("init", "my_lab", cwd=tmp_path)
    assert "Nothing is wrong" in batchlab("check", cwd=lab)
    batchlab("sweep", "batch_size=8,64", cwd=lab)

    records = [json.loads(path.read_text()) for path in lab.glob("runs/my_data.load-my_model.Net/*/record.json")]
    assert sorted((record["batch_size"], record["status"]) for record in records) == [
        (8, "completed"),
        (64, "completed"),
    ]
    assert all(record["final"]["val/accuracy"] > 0.9 for record in records)
    assert (lab / "runs" / "my_data.load-my_model.Net" / "report.html").is_file()


def test_the_wheel_holds_the_lab_that_init_copies(wheel: Path, repository: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())

    lab = {str(path.relative_to(repository)) for path in repository.glob("batchlab/cli/lab/**/*") if path.is_file()}
    assert len(lab) > 8
    assert lab <= names
