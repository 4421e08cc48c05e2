"""Run folders become tables, however they were left."""

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from invented.folders import MISSED, line, reached, write_run

import batchlab
from batchlab.recording.journal import read_journal
from batchlab.report.tables.groups import groups
from batchlab.report.tables.study import each_run, read_study

CURVE = [("val/loss", 0, 0.0, 2.0), ("val/loss", 10, 0.5, 1.0), ("train/loss", 10, 0.5, 0.9)]


def test_a_study_is_a_row_per_run_and_a_row_per_measurement(tmp_path: Path) -> None:
    study = tmp_path / "digits"
    large = write_run(study, 256, final={"val/loss": 0.2}, curve=CURVE, target=MISSED)
    small = write_run(study, 8, seed=3, status="oom", target=reached(12, 8), steps=0)

    read = read_study(study)

    assert (read.name, read.folder, read.damaged) == ("digits", study, ())
    assert list(read.runs.index) == [small, large]
    assert read.runs.index.name == "run_id"
    assert list(read.runs["status"]) == ["oom", "completed"]
    assert read.runs["batch_size"].dtype == np.int64
    assert read.runs.loc[large, "final.val/loss"] == 0.2
    assert math.isnan(read.runs.loc[small, "final.val/loss"])
    assert list(read.runs["target.reached"]) == [True, False]
    assert list(read.runs["target.step"].fillna(-1)) == [12, -1]
    rows = read.measurements
    assert list(rows.columns) == ["run_id", "name", "step", "examples", "train_seconds", "value", "low", "high", "n"]
    assert set(rows["run_id"]) == {large}
    assert rows[["step", "examples", "train_seconds", "value"]].values.tolist() == [
        [0, 0, 0, 2],
        [10, 2560, 0.5, 1],
        [10, 2560, 0.5, 0.9],
    ]
    assert rows[["low", "high", "n"]].isna().all(axis=None)
    assert [(run_id, list(curve["value"])) for run_id, curve in each_run(rows, "val/loss")] == [(large, [2.0, 1.0])]


def test_the_columns_are_those_of_results_csv(tmp_path: Path) -> None:
    import pandas

    from batchlab.recording.results import write_results

    write_run(tmp_path, 8, target=reached(12, 8), final={"val/loss": math.inf})

    runs = batchlab.load_runs(tmp_path)

    written = pandas.read_csv(write_results(tmp_path))
    assert set(written.columns) == {"run_id", *runs.columns}
    assert written.loc[0, "final.val/loss"] == runs["final.val/loss"].iloc[0] == math.inf
    assert written.loc[0, "model.width"] == runs["model.width"].iloc[0] == 128


def test_texts_for_values_that_are_not_finite_become_numbers_and_a_torn_line_is_ignored(tmp_path: Path) -> None:
    run = write_run(tmp_path, 8)
    lines = [line(i, "val/loss", text, i, 8) for i, text in enumerate(["nan", "inf", "-inf", 1])]
    banded = line(4, "noise/scale_examples", 7.5, 4, 8, low=2, high="inf", n=9)
    (tmp_path / run / "metrics.jsonl").write_text("\n".join([*lines, banded, banded[:40]]))

    read = read_study(tmp_path)

    assert repr(list(read.measurements["value"])) == "[nan, inf, -inf, 1.0, 7.5]"
    assert read.measurements[["low", "high", "n"]].iloc[4].tolist() == [2, math.inf, 9]
    assert read.damaged == ()


BROKEN = [
    b"no json",
    b"[1, 2]",
    b"3",
    b"null",
    b'{"seq": 1}',
    b'{"seq": 1, "name": "val/loss", "value": null, "step": 1, "examples": 8, "train_seconds": 0}',
    b'{"seq": 1, "name": "val/loss", "value": [1], "step": 1, "examples": 8, "train_seconds": 0}',
    b'{"seq": 1, "name": "val/loss", "value": "x", "step": 1, "examples": 8, "train_seconds": 0}',
    b'{"seq": null, "name": "val/loss", "value": 1, "step": 1, "examples": 8, "train_seconds": 0}',
    b'{"seq": 1, "name": "\xff", "value": 1, "step": 1, "examples": 8, "train_seconds": 0}',
    b"[" * 5000,
    b"1}, {",
    b'{"seq": 1, "name": "val/loss", "value": 1, "step": 1, "examples": 8, "train_seconds": 0}, {}',
    b"",
]


@pytest.mark.parametrize("broken", BROKEN, ids=range(len(BROKEN)))
@pytest.mark.parametrize("alone", [True, False])
def test_a_broken_line_is_left_out_and_reported(tmp_path: Path, broken: bytes, alone: bool) -> None:
    run = write_run(tmp_path, 8)
    good = b"" if alone else line(0, "val/loss", 1.5, 1, 8).encode() + b"\n"
    path = tmp_path / run / "metrics.jsonl"
    path.write_bytes(good + broken + b"\n" + good)

    read = read_study(tmp_path)

    assert list(read.measurements["value"]) == [m.value for m in read_journal(path)] == ([] if alone else [1.5, 1.5])
    assert read.damaged == (f"{path}, line {1 if alone else 2} is not a measurement and was left out",)
    assert len(read.runs) == 1


def test_two_halves_of_a_line_are_not_one(tmp_path: Path) -> None:
    run = write_run(tmp_path, 8)
    whole = line(0, "val/loss", 1.5, 1, 8)
    pair = f'{whole}\n{{"a": [1\n2]}}\n{whole}, {whole}\n'  # joined by commas: four entries of four lines
    (tmp_path / run / "metrics.jsonl").write_text(pair)

    read = read_study(tmp_path)

    assert list(read.measurements["value"]) == [1.5]
    assert "and 2 more such lines" in read.damaged[0]


def test_damaged_runs_are_named_and_harm_no_other(tmp_path: Path) -> None:
    good = write_run(tmp_path, 8, curve=CURVE)
    for name, text in {"torn": '{"run_id": "x', "list": "[]", "empty": "", "short": '{"run_id": "x"}'}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_text(text)
    write_run(tmp_path, 16, run_id="strange", config={"data": 5})
    write_run(tmp_path, 16, run_id="no-curve")
    (tmp_path / "no-curve" / "metrics.jsonl").unlink()
    write_run(tmp_path, 16, run_id="a-folder")
    (tmp_path / "a-folder" / "metrics.jsonl").unlink()
    (tmp_path / "a-folder" / "metrics.jsonl").mkdir()
    copied = json.loads((tmp_path / good / "record.json").read_text())
    (tmp_path / "zz-copy").mkdir()
    (tmp_path / "zz-copy" / "record.json").write_text(json.dumps(copied | {"run_id": good}))

    read = read_study(tmp_path)

    assert set(read.runs.index) == {good, "no-curve", "a-folder"}
    assert set(read.measurements["run_id"]) == {good}
    for name in ("torn", "list", "empty", "short", "strange", "a-folder", "zz-copy"):
        assert sum(name in sentence for sentence in read.damaged) == 1, name


def test_a_text_that_cannot_be_encoded_is_replaced(tmp_path: Path) -> None:
    """pandas stores texts as Arrow if pyarrow is installed, which refuses a lone surrogate."""
    run = write_run(tmp_path, 8, run_id="r", reason="\ud800", config={"data": {"_target_": "\udfff.x"}, "\ud800": 1})
    (tmp_path / run / "metrics.jsonl").write_text(line(0, "val/\ud800", 1, 1, 8) + "\n")
    lone = json.loads((tmp_path / run / "record.json").read_text()) | {"run_id": "\ud800"}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "record.json").write_text(json.dumps(lone))

    read = read_study(tmp_path)

    texts = [*read.runs.columns, *read.runs.index, *read.runs["reason"], *read.runs["data"], *read.requested.columns]
    assert "".join([*texts, *read.measurements["name"]]).encode()
    assert set(read.runs.index) == {"r", "?"}


def test_an_empty_study_has_every_column_and_no_row(tmp_path: Path) -> None:
    read = read_study(tmp_path)

    assert len(read.runs) == len(read.measurements) == 0
    assert {"batch_size", "status", "seed", "train_seconds", "target.reached"} <= set(read.runs.columns)
    assert list(read.measurements.columns)[:2] == ["run_id", "name"]
    assert list(each_run(read.measurements, "val/loss")) == []


def test_no_such_folder_is_a_bad_request(tmp_path: Path) -> None:
    with pytest.raises(batchlab.BadRequest, match="there is no folder"):
        batchlab.load_runs(tmp_path / "nowhere")


def test_importing_batchlab_imports_no_pandas() -> None:
    code = "import sys, batchlab; assert batchlab.load_runs; sys.exit('pandas' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_200_runs_of_1000_measurements_are_read_in_3_seconds(tmp_path: Path) -> None:
    for seed in range(200):
        curve = [(("val/loss", "train/loss")[i % 2], i, i / 10, 1 / (i + 1)) for i in range(1000)]
        write_run(tmp_path, 8, seed, curve=curve)
    started = time.process_time()

    read = read_study(tmp_path)

    assert time.process_time() - started < 3
    assert len(read.measurements) == 200_000


def test_runs_for_which_files_were_to_be_fetched_compare_with_the_others(tmp_path: Path) -> None:
    for size, download in ((8, True), (32, False)):
        mnist = {"_target_": "batchlab.data.mnist.load", "folder": "data", "download": download}
        write_run(tmp_path / "study", size, config={"data": mnist})

    (group,) = groups(read_study(tmp_path / "study"))

    assert group.batch_sizes == (8, 32)
