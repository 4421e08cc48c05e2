"""`batchlab init` makes a lab that works as it is, and harms nothing that is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from batchlab.cli.commands.init import STARTS
from batchlab.cli.main import main
from batchlab.hydra_app import compose
from batchlab.recording.run_folder import read_records
from batchlab.sweep.processes.server import WarmServer


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "my lab"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "Next: cd 'my lab' && batchlab check && batchlab sweep batch_size=8,64"
    assert (tmp_path / "my lab" / ".gitignore").read_text().splitlines()[0] == "runs/"
    for line in said[1:-1]:
        assert (tmp_path / "my lab" / line.split()[0]).is_file()
    monkeypatch.chdir(tmp_path / "my lab")
    return tmp_path / "my lab"


def test_a_command_without_model_and_data_takes_those_of_the_lab(lab: Path) -> None:
    config = compose(["device=cpu", "batch_size=64"])

    assert config.model == {"_target_": "my_model.Net", "width": 32}
    assert config.data == {"_target_": "my_data.load", "train_size": 3000, "val_size": 1000}
    assert (config.lr, str(config.budget), config.study_name) == (0.05, "epochs=10", "my_data.load-my_model.Net")


def test_the_command_line_and_experiments_hold_over_the_lab(lab: Path) -> None:
    (lab / "configs" / "experiment" / "other.yaml").write_text("# @package _global_\n# Which?\nlr: 0.3\n")

    assert compose(["device=cpu", "data=digits", "model=cnn"]).model["_target_"] == "batchlab.models.cnn.CNN"
    assert compose(["device=cpu", "model._target_=my_net.Other"]).model == {"_target_": "my_net.Other"}
    assert compose(["device=cpu", "lr=0.7"]).lr == 0.7
    assert compose(["device=cpu", "experiment=other"]).lr == 0.3


def test_config_shows_what_the_lab_adds(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config"]) == 0

    told = capsys.readouterr().out.partition(f"Configs of this lab, in {lab / 'configs'}; they take precedence")[2]
    assert re.search(r"^ +model=mine +The model of this lab: the arguments of my_model.Net", told, re.MULTILINE)
    assert re.search(r"^ +experiment=first +Which batch size should be used here", told, re.MULTILINE)


def test_its_own_instrument_measures(lab: Path, server: WarmServer) -> None:
    server.warm_up()

    assert main(["train", "device=cpu", "batch_size=64", "instruments=mine", "epochs=1"]) == 0

    (record,) = read_records(lab / "runs" / "my_data.load-my_model.Net", [])
    assert record.final["mine/distance"] > 0
    assert record.final["val/accuracy"] > 0.5


OF_LOADER = "that of the task's loader: 3,000"
NEEDS = {"lightning": "lightning", "hugging_face": "transformers"}


@pytest.mark.parametrize(
    ("start", "order", "reduction"),
    [
        ("loaders", OF_LOADER, "none"),
        ("torch", "", "mean"),
        ("lightning", OF_LOADER, "mean"),
        ("hugging_face", "", "mean"),
    ],
)
def test_a_lab_from_what_a_user_has_sweeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: WarmServer, start: str, order: str, reduction: str
) -> None:
    if start in NEEDS:
        pytest.importorskip(NEEDS[start], reason=f"{NEEDS[start]} is not installed")
    server.warm_up()
    monkeypatch.chdir(tmp_path)
    assert main(["init", "lab", "--from", start]) == 0
    monkeypatch.chdir(tmp_path / "lab")
    for name in ("my_data", "my_model"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    assert main(["sweep", "device=cpu", "batch_size=8,64", "epochs=1", "report=false"]) == 0

    records = read_records(tmp_path / "lab" / "runs" / "my_data.load-my_model.Net", [])
    assert len(records) == 2
    for record in records:
        assert record.final["val/accuracy"] > 0.5
        assert record.environment.get("data_order", "").startswith(order)
        assert record.reduction == reduction


def test_what_is_there_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "repository" / ".git").mkdir(parents=True)

    for name in ("full", "file"):
        assert main(["init", name]) == 2
        assert capsys.readouterr().err == f"batchlab: {name} exists and is not empty: give the name of a new folder\n"
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    assert main(["init", "repository"]) == 0
    capsys.readouterr()
    assert main(["init", "file/lab"]) != 0
    assert re.fullmatch(r"batchlab: .*[Nn]ot a directory.*\n", capsys.readouterr().err)


def test_a_start_whose_package_is_missing_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "lightning", None)

    assert main(["init", "lab", "--from", "lightning"]) == 0

    printed = capsys.readouterr().out.splitlines()
    assert printed[-2] == "It needs lightning, which is not installed here: pip install lightning"
    assert (tmp_path / "lab" / "my_model.py").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("start", [None, *STARTS])
def test_its_own_test_passes_and_its_code_is_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str | None
) -> None:
    if start in NEEDS:
        pytest.importorskip(NEEDS[start], reason=f"{NEEDS[start]} is not installed")
    monkeypatch.chdir(tmp_path)
    lab = tmp_path / "my lab"
    assert main(["init", "my lab", *(["--from", start] if start else [])]) == 0
    for command in (
        ["pytest", "-q", "-p", "no:cacheprovider"],
        ["ruff", "check", "--isolated", "--line-length=120", "."],
    ):
        done = subprocess.run([sys.executable, "-m", *command], cwd=lab, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
