"""`batchlab export`: a study's tables as files, read back by other programs."""

import csv
import importlib.util
import io
import json
import math
from pathlib import Path

import pandas
import pytest
from invented.folders import line, reached, write_run
from invented.records import batchlab

from batchlab.cli.main import main


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "digits"
    curve = [("val/loss", 0, 0.0, 2.0), ("val/loss", 10, 0.5, 1.0)]
    write_run(folder, 8, curve=curve, target=reached(12, 8), final={"val/loss": math.inf}, run_id="first")
    write_run(folder, 16, status="failed", reason="=cmd|' /C calc'!A0 \ud800", run_id="second")
    banded = line(0, "noise/scale_examples", "nan", 4, 16, low=2, high="inf", n=9)
    (folder / "second" / "metrics.jsonl").write_text(f"{banded}\n")
    return folder


def test_runs_go_to_a_csv_that_says_what_the_records_do(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "digits"]) == 0

    assert capsys.readouterr().out == "2 runs of digits in digits-runs.csv\n"
    first, second = csv.DictReader(io.StringIO(Path("digits-runs.csv").read_text()))
    assert (first["run_id"], first["batch_size"], first["target.step"]) == ("first", "8", "12")
    assert (first["final.val/loss"], second["final.val/loss"]) == ("inf", "")
    assert (first["target.reached"], second["target.reached"]) == ("True", "")
    assert second["reason"] == "'=cmd|' /C calc'!A0 ?"  # no formula, no surrogate


def test_measurements_go_to_a_csv(study: Path) -> None:
    assert main(["export", str(study), "--measurements", "--output", "all.csv"]) == 0

    assert Path("all.csv").read_text() == (
        "run_id,name,step,examples,train_seconds,value,low,high,n\n"
        "first,val/loss,0,0,0.0,2.0,,,\n"
        "first,val/loss,10,80,0.5,1.0,,,\n"
        "second,noise/scale_examples,4,64,0.0,nan,2.0,inf,9\n"
    )


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        (["--output", "runs.json"], b"[{"),
        (["--output", "runs.PARQUET"], b"PAR1"),
        (["--output", "runs.xlsx", "--format", "csv"], b"run_id,"),
        (["--output", "runs.tmp"], b"run_id,"),
        (["--output", "runs.csv", "--format", "parquet"], b"PAR1"),
    ],
)
def test_the_format_is_the_one_of_the_files_ending(study: Path, arguments: list[str], first: bytes) -> None:
    if first == b"PAR1":
        pytest.importorskip("pyarrow", reason="needs pyarrow")

    assert main(["export", str(study), *arguments]) == 0

    assert Path(arguments[1]).read_bytes().replace(b" ", b"").replace(b"\n", b"").startswith(first)


def test_a_format_that_the_name_does_not_show_is_said(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "digits", "--format", "csv", "--output", "runs.json"]) == 0
    assert capsys.readouterr().out == "2 runs of digits in runs.json, written as csv\n"

    assert main(["export", "digits", "--format", "json", "--output", "runs.JSON"]) == 0
    assert capsys.readouterr().out == "2 runs of digits in runs.JSON\n"


def test_json_goes_to_stdout_and_is_json(study: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["export", "digits", "--format", "json", "--output", "-", "--measurements"]) == 0

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    rows = json.loads(capfdbinary.readouterr().out, parse_constant=refuse)
    assert rows[1]["value"] == 1.0
    assert rows[1]["step"] == 10
    assert rows[2]["value"] == "nan"
    assert (rows[2]["low"], rows[2]["high"], rows[0]["low"]) == (2.0, "inf", None)


def test_runs_as_json_keep_their_types(study: Path) -> None:
    assert main(["export", "digits", "--format", "json"]) == 0

    first, second = json.loads(Path("digits-runs.json").read_text())
    assert (first["batch_size"], first["target.reached"], first["target.step"]) == (8, True, 12)
    assert (second["target.reached"], second["final.val/loss"], first["final.val/loss"]) == (None, None, "inf")


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is not None, reason="pyarrow is here")
def test_parquet_without_pyarrow_is_refused_with_what_to_install(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "digits", "--format", "parquet"]) == 2

    error = capsys.readouterr().err
    assert "`pip install pyarrow`" in error
    assert "--format csv" in error
    assert error.count("\n") == 1


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="needs pyarrow")
def test_parquet_holds_what_csv_does(study: Path) -> None:
    assert main(["export", "digits", "--format", "parquet"]) == 0
    assert main(["export", "digits", "--format", "parquet", "--measurements"]) == 0

    runs, taken = (pandas.read_parquet(f"digits-{kind}.parquet") for kind in ("runs", "measurements"))
    assert list(runs["run_id"]) == ["first", "second"]
    assert runs["target.reached"].iloc[0] is True or bool(runs["target.reached"].iloc[0])
    assert list(taken["step"]) == [0, 10, 4]
    assert taken["high"].iloc[2] == math.inf


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "there is no study 'nowhere' in runs/; the studies there are: digits"),
        ([], "STUDY"),
        (["digits", "--format", "xls"], "csv"),
        (["digits", "--output", "runs"], "is a folder"),
        (
            ["digits", "--output", "runs.xlsx"],
            "csv, parquet and json, not xlsx; give another name, such as --output runs.csv, or add --format csv, which "
            "writes csv into runs.xlsx",
        ),
        (["digits", "--output"], "--output needs a value, such as --output runs.csv; "),
        (["digits", "--output", "no/such/x.csv"], ": the folder no/such does not exist"),
    ],
)
def test_a_mistake_is_reported_in_one_line(
    study: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", *arguments]) == 2

    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_damaged_run_is_reported_and_the_others_are_exported(study: Path) -> None:
    (study / "torn").mkdir()
    (study / "torn" / "record.json").write_text("{")

    ended = batchlab("export", "digits", "--output", "-", folder=study.parents[1])

    assert ended.returncode == 0
    assert "torn" in ended.stderr
    assert [row["run_id"] for row in csv.DictReader(io.StringIO(ended.stdout))] == ["first", "second"]
