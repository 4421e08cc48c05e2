"""The table: options first, one row per run, numbers that come back, texts that stay texts."""

import csv
import math

import pytest
from invented.written import config, record

from batchlab.recording.results import row, rows, write_results
from batchlab.recording.run_folder import write_record
from batchlab.records import RunStatus


@pytest.fixture
def study(tmp_path):
    for made in (
        record(batch_size=256, seed=1, status=RunStatus.OOM, reason="=HYPERLINK(1)", accumulate=4),
        record(
            batch_size=8,
            lr_scaled=0.0125,
            final={"val/loss": 0.25, "train/loss": -math.inf},
            best={"val/loss": {"value": 0.2, "examples": 1440}},
            target={"metric": "val/loss", "value": 0.3, "reached": True, "examples": 1440},
            config=config(optimizer={"_target_": "torch.optim.AdamW", "betas": [0.9, 0.99]}, batch_size=8),
            overrides=("+data.x=1", "batch_size=8"),
        ),
    ):
        (tmp_path / made.run_id).mkdir()
        write_record(tmp_path / made.run_id, made)
    return tmp_path


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_holds_the_options_and_the_outcome_by_batch_size(study):
    small, large = rows(study)

    assert list(small)[:6] == ["batch_size", "micro_batch_size", "accumulate", "lr", "lr_scaling", "lr_scaled"]
    assert (small["batch_size"], large["batch_size"]) == (8, 256)
    assert (small["lr_scaled"], large["accumulate"]) == (0.0125, 4)
    assert (small["optimizer"], small["optimizer.betas"]) == ("AdamW", "[0.9, 0.99]")
    assert (small["final.val/loss"], small["best.val/loss.value"], small["target.examples"]) == (0.25, 0.2, 1440)
    assert (large["status"], large["model"], large["data"]) == ("oom", "mlp", "digits")


def test_where_a_run_ended_and_what_it_could_not_do_as_requested_are_columns():
    columns = row(record(phase="backward", notes=("a note",), eval_batch_size_used=5))

    assert (columns["phase"], columns["notes"], columns["eval_batch_size_used"]) == ("backward", '["a note"]', 5)


def test_options_of_every_run_come_before_the_outcome_of_any(study):
    columns = list(read(write_results(study))[0])

    assert columns.index("optimizer.betas") < columns.index("run_id")
    assert columns.index("optimizer.momentum") < columns.index("run_id")
    assert columns.index("run_id") < columns.index("final.val/loss")


def test_numbers_stay_numbers_and_what_is_missing_is_empty(study):
    import pandas  # the reader most users have

    table = pandas.read_csv(write_results(study))

    assert table["batch_size"].tolist() == [8, 256]
    assert table["lr_scaled"].iloc[0] == 0.0125
    assert math.isnan(table["lr_scaled"].iloc[1])
    assert table["final.train/loss"].iloc[0] == -math.inf
    small, large = read(study / "results.csv")
    assert (small["accumulate"], large["accumulate"]) == ("1", "4")
    assert large["final.val/loss"] == ""


def test_a_text_is_no_formula_and_a_secret_is_not_reported(study):
    small, large = read(write_results(study))

    assert large["reason"] == "'=HYPERLINK(1)"
    assert small["overrides"] == "'+data.x=1 batch_size=8"
    assert "sk-123" not in (study / "results.csv").read_text()


def test_a_damaged_record_costs_its_row_alone(study):
    (study / "bs8-s0" / "record.json").write_text("{")
    unreadable = []

    assert [row["batch_size"] for row in read(write_results(study, unreadable))] == ["256"]
    assert len(unreadable) == 1


def test_an_empty_study_makes_an_empty_table(tmp_path):
    assert write_results(tmp_path).read_text().strip() == ""
