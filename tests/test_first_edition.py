"""Studies of the first edition (commit 10de418) can be read; finished runs are skipped, others resume bitwise."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from batchlab.cli.main import main
from batchlab.sweep.processes.server import WarmServer

STUDY = "runs/first_edition"
MODEL = (
    *("device=cpu", "threads=1", "data=digits", "data.train_size=64", "model=mlp", "model.width=4", "model.depth=1"),
    *("lr=0.05", "report=false"),
)
ENDED = ("batch_size=8,32", "epochs=2", "eval_every=64", "instruments=full")
INTERRUPTED = ("batch_size=16", "epochs=300", "eval_every=9600", "log_every=9600", "checkpoint_every=3200")
INTERRUPTED_ID = "bs16-lr0.05-fp32-s0-e3b636d09a"


@pytest.fixture
def study(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a study from `batchlab sweep` at that commit: two completed runs, and one stopped by Ctrl-C."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(repository / "tests/old_studies/first_edition", STUDY)
    return tmp_path / STUDY


def sweep(*overrides: str) -> int:
    return main(["sweep", *MODEL, *overrides])


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("metrics.jsonl")}


def test_it_is_listed_with_what_each_run_came_to(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "first_edition"]) == 0

    shown = capsys.readouterr().out
    assert "3 points, 2 completed, 1 interrupted" in shown
    assert [line.split()[:6] for line in shown.splitlines() if INTERRUPTED_ID in line] == [
        ["16", "0.05", "fp32", "0", "interrupted", "-"]
    ]


def test_its_numbers_are_exported_as_they_were_written(study: Path, tmp_path: Path) -> None:
    assert main(["export", "first_edition", "--output", "all.csv"]) == 0

    with (tmp_path / "all.csv").open() as table:
        rows = {row["run_id"]: row for row in csv.DictReader(table)}
    written = {p.parent.name: json.loads(p.read_text()) for p in study.glob("*/record.json")}
    assert rows.keys() == written.keys()
    for run_id, record in written.items():
        assert float(rows[run_id]["final.val/loss"]) == record["final"]["val/loss"]
        assert rows[run_id]["status"] == record["status"]


def test_its_report_is_made_of_all_its_runs(study: Path) -> None:
    assert main(["report", "first_edition"]) == 0

    text = (study / "report.md").read_text().replace("\\", "")
    assert f"1 run interrupted ({INTERRUPTED_ID})" in text
    assert "| 8 | 0 | completed | 2.209 | 128 |" in text


def test_runs_that_ended_are_the_same_runs_and_are_skipped(
    study: Path, server: WarmServer, capfd: pytest.CaptureFixture[str]
) -> None:
    before = files(study)

    assert sweep(*ENDED, "study=first_edition") == 0

    assert "2 of the 2 points are finished and are not run again" in capfd.readouterr().err
    assert files(study) == before


def test_an_interrupted_run_is_refused_for_its_other_code_and_resumed_where_that_is_accepted(
    study: Path, server: WarmServer, capfd: pytest.CaptureFixture[str]
) -> None:
    assert sweep(*INTERRUPTED, "study=first_edition") == 2
    refusal = capfd.readouterr().err
    assert "add accept_changed=true" in refusal
    assert INTERRUPTED_ID in refusal

    assert sweep(*INTERRUPTED, "study=first_edition", "accept_changed=true") == 0
    assert sweep(*INTERRUPTED, "study=anew") == 0  # of today, never interrupted

    resumed, anew = (
        json.loads(Path(f"runs/{name}/{INTERRUPTED_ID}/record.json").read_text()) for name in ("first_edition", "anew")
    )
    assert resumed["resumed_at"] == [253]
    assert (resumed["status"], resumed["steps"]) == ("completed", 1200)
    assert resumed["final"]["val/loss"] == anew["final"]["val/loss"]
    assert resumed["weights_fingerprint"] == anew["weights_fingerprint"]
