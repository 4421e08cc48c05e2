"""`batchlab list` shows what is on disk, damaged folders included."""

import json
from pathlib import Path

import pytest
from invented.records import record

from batchlab.cli.main import main
from batchlab.recording.run_folder import write_record
from batchlab.records import RunRecord, RunStatus


def put(study: Path, run: RunRecord) -> None:
    folder = study / run.run_id
    folder.mkdir(parents=True)
    write_record(folder, run)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two studies, one with a damaged run; the folder they are in is the working folder."""
    mlp, cnn = tmp_path / "runs" / "digits-mlp", tmp_path / "runs" / "digits-cnn"
    for run in (
        record(256),
        record(32, {"precision": "bf16"}, run_id="b32-bf16"),
        record(32),
        record(8, {"lr": 0.1}, run_id="b8-fast"),
        record(8),
        record(1024, status=RunStatus.OOM, final={}, ended_at="2026-11-24T00:01:30Z"),
    ):
        put(mlp, run)
    last = "2026-11-25T12:00:00Z"  # `digits-cnn` ended last, and is first by name
    put(
        cnn,
        record(64, run_id="b64\x1b[31m", status=RunStatus.DIVERGED, final={"val/loss": float("nan")}, ended_at=last),
    )
    (cnn / "torn").mkdir()
    (cnn / "torn" / "record.json").write_text('{"run_id": "to')
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def test_list_counts_the_points_of_every_study(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0

    said = capsys.readouterr()
    assert said.out == (
        "study       points  how they ended      last ended\n"
        "digits-mlp       6  5 completed, 1 oom  2026-11-24 00:01 UTC\n"
        "digits-cnn       1  1 diverged          2026-11-25 12:00 UTC\n"
    )
    assert "digits-cnn/torn/record.json cannot be read" in said.err


@pytest.mark.parametrize("name", ["digits-mlp", "runs/digits-mlp", "./runs/digits-mlp/"])
def test_list_shows_the_points_of_a_study(name: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", name]) == 0

    assert capsys.readouterr().out == (
        "runs/digits-mlp: 6 points, 5 completed, 1 oom; last ended 2026-11-24 00:01 UTC\n"
        "\n"
        "batch  learning                              examples     val\n"
        " size      rate  precision  seed  status           /s    loss  run\n"
        "    8      0.05  fp32          0  completed     8,000  0.1530  b8-0\n"
        "    8       0.1  fp32          0  completed     8,000  0.1530  b8-fast\n"
        "   32      0.05  bf16          0  completed    32,000  0.1530  b32-bf16\n"
        "   32      0.05  fp32          0  completed    32,000  0.1530  b32-0\n"
        "  256      0.05  fp32          0  completed   256,000  0.1530  b256-0\n"
        " 1024      0.05  fp32          0  oom               -       -  b1024-0\n"
    )


def test_list_prints_no_control_characters(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "digits-cnn"]) == 0

    assert "\x1b" not in capsys.readouterr().out


def test_list_names_the_studies_that_exist(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "digits-mpl"]) == 2
    assert "there is no study 'digits-mpl' in runs/: did you mean 'digits-mlp'?" in capsys.readouterr().err
    assert main(["list", "zzz"]) == 2
    assert "there is no study 'zzz' in runs/; the studies there are: digits-cnn, digits-mlp" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["list other", "report other", "export other", "dashboard other", "compare other digits-mlp"]
)
def test_a_folder_without_runs_is_no_study(command: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("other").mkdir()
    Path("other", "notes.txt").write_text("mine")

    assert main(command.split()) == 2

    assert capsys.readouterr().err == (
        "batchlab: 'other' is a folder, but holds no runs: give a study's name or its folder, such as runs/digits-mlp "
        "(`batchlab list` shows the studies)\n"
    )
    assert [path.name for path in Path("other").iterdir()] == ["notes.txt"]


def test_a_folder_above_or_below_a_study_is_no_study(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "runs"]) == 2
    assert "'runs' is a folder of studies: give one of them: runs/digits-cnn, runs/digits-mlp\n" in (
        capsys.readouterr().err
    )
    assert main(["report", "runs/digits-mlp/b8-0"]) == 2
    assert "'runs/digits-mlp/b8-0' is the folder of one run: give that of its study, runs/digits-mlp\n" in (
        capsys.readouterr().err
    )


def test_list_of_nothing_says_how_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(["list"]) == 0
    assert capsys.readouterr().out == ("No runs yet in runs/: start one with `batchlab sweep batch_size=8,32,256`.\n")
    assert main(["list", "--runs-dir", "elsewhere", "digits"]) == 2
    assert "there is no study 'digits': there are no runs yet in elsewhere/; start" in capsys.readouterr().err


def test_list_for_a_program_is_json_that_every_parser_reads(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    assert main(["list", "--json"]) == 0
    studies = json.loads(capsys.readouterr().out)["studies"]
    assert main(["list", "digits-cnn", "--json"]) == 0
    cnn = json.loads(capsys.readouterr().out, parse_constant=refuse)

    assert [(study["study"], study["points"]) for study in studies] == [("digits-cnn", 1), ("digits-mlp", 6)]
    assert studies[1]["statuses"] == {"completed": 5, "oom": 1}
    assert len(studies[0]["damaged"]) == 1
    assert cnn["records"][0]["batch_size"] == 64
    assert cnn["records"][0]["final"] == {"val/loss": "nan"}


def test_the_gpus_of_a_study_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for size, gpu in ((8, "NVIDIA L4"), (32, "NVIDIA L4"), (64, "NVIDIA A100")):
        put(tmp_path / "runs/several", record(size, {"device": "cuda"}, environment={"device_name": gpu}))

    assert main(["list", "several", "--runs-dir", str(tmp_path / "runs")]) == 0
    assert "\nMeasured on NVIDIA L4 (2 points), NVIDIA A100 (1 point): speeds and" in capsys.readouterr().out
    assert main(["list", "several", "--json", "--runs-dir", str(tmp_path / "runs")]) == 0
    assert json.loads(capsys.readouterr().out)["measured_on"] == {"NVIDIA L4": 2, "NVIDIA A100": 1}
