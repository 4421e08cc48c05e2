"""What a user's own instrument declares is shown as what ours do; what it does not declare, as it always was."""

import io
from dataclasses import replace

from invented.written import points, record, write_run
from rich.console import Console
from tensorboard_http import Dashboard

from batchlab.recording.results import row
from batchlab.recording.run_folder import read_record, write_record
from batchlab.records import Measurement
from batchlab.records.quantity import Chart, Quantity
from batchlab.report.compare.comparison import compare
from batchlab.report.tables.study import read_study
from batchlab.sweep.summary.table import show
from batchlab.tensorboard.study_view import rebuild

DECLARED = (
    Quantity(
        "mine/score",
        "points",
        "what I look at",
        higher_is_better=True,
        clocked=True,
        chart=Chart("Mine", "my score", over_steps="my score by steps", by_batch_size="my best scores"),
        keep_best=True,
        compared="difference",
        label="score",
        column="my\nscore",
        headline=True,
    ),
    Quantity("mine/other/<kind>", "points", "others", chart=Chart("Mine", "my others")),
)


def fabricate(study, quantities, factor=1.0):
    for batch_size in (8, 32):
        final = {"val/loss": 0.5, "mine/score": factor * batch_size, "mine/other/a": 2.0, "zz/undeclared": 1.0}
        made = record(
            batch_size=batch_size,
            final=final,
            best={"mine/score": {"value": 99.0, "examples": 512}},
            quantities=quantities,
            shared_machine=batch_size == 32,
        )
        last = [Measurement(name, value, 64, 2048, 4.0) for name, value in final.items() if name != "val/loss"]
        write_run(study, made, [*points(batch_size, 0.5), *last])
    return study


def test_what_is_declared_comes_back_with_its_record_and_is_no_column_of_results(tmp_path):
    made = record(quantities=DECLARED)
    (tmp_path / "run").mkdir()
    write_record(tmp_path / "run", made)

    read = read_record(tmp_path / "run")

    assert read.quantities == DECLARED
    assert [name for name in row(read) if "quantities" in name] == []


def test_a_record_with_a_quantity_that_is_none_is_damaged_and_reported(tmp_path):
    write_record(tmp_path, replace(record(), quantities=({"name": "mine/score", "unit": 3, "meaning": ""},)))
    reported = []

    assert read_record(tmp_path, reported) is None
    assert "it has an invalid quantity: Quantity(unit=3) is invalid" in reported[0]


def test_tensorboard_draws_what_is_declared_as_it_draws_ours(tmp_path):
    rebuild(fabricate(tmp_path / "declared", DECLARED))
    dashboard = Dashboard.of(tmp_path / "declared")

    charts = dashboard.charts()
    assert list(charts) == ["Learning", "Mine", "By batch size (the step is the batch size)"]
    assert charts["Mine"] == {
        "my score": ["^mine/score$"],
        "my score by steps": ["^mine/score_by_step$"],
        "my others": ["^mine/other/.*$"],
    }
    assert charts["By batch size (the step is the batch size)"]["my best scores"] == [
        "^by_batch_size/(best_)?mine_score.*$"
    ]
    assert [step for _, step, _ in dashboard.scalars("bs8-s0", "mine/score_by_step")] == [64]
    metrics = [info["name"]["tag"] for info in dashboard.experiment()["metricInfos"]]
    assert metrics == ["val/loss", "mine/score", "mine/other/a", "zz/undeclared"]


def test_what_is_not_declared_is_in_the_table_of_tensorboard_and_in_no_chart(tmp_path):
    rebuild(fabricate(tmp_path / "undeclared", ()))
    dashboard = Dashboard.of(tmp_path / "undeclared")

    assert "Mine" not in dashboard.charts()
    metrics = [info["name"]["tag"] for info in dashboard.experiment()["metricInfos"]]
    assert metrics == ["val/loss", "mine/other/a", "mine/score", "zz/undeclared"]


def test_what_is_declared_to_be_clocked_is_kept_separate_where_runs_shared_the_machine(tmp_path):
    rebuild(fabricate(tmp_path / "declared", DECLARED))
    dashboard = Dashboard.of(tmp_path / "declared")
    (curve,) = [run for run in dashboard.runs() if "by_batch_size" in run]

    drawn = {tag: [point[1:] for point in dashboard.scalars(curve, tag)] for tag in dashboard.tags()[curve]}

    assert drawn["by_batch_size/mine_score"] == [(8, 8)]
    assert drawn["by_batch_size/mine_score_on_shared_machine"] == [(32, 32)]
    assert drawn["by_batch_size/best_mine_score_on_shared_machine"] == [(32, 99)]
    assert drawn["by_batch_size/mine_other_a"] == [(8, 2), (32, 2)]


def test_compare_and_the_end_table_have_a_row_and_a_column_of_it(tmp_path):
    studies = [fabricate(tmp_path / "a", DECLARED), fabricate(tmp_path / "b", DECLARED, factor=1.5)]
    read = [read_study(study) for study in studies]

    measured = {
        (m.quantity, m.batch_size): (m.first, m.second, m.change.value) for m in compare(read, ((), ())).measured
    }
    console = Console(file=io.StringIO(), width=200)
    show([read_record(studies[0] / f"bs{size}-s0") for size in (8, 32)], studies[0], console)
    lines = console.file.getvalue().splitlines()

    assert measured["final score", 8] == (8.0, 12.0, 4.0)
    assert measured["best score", 8] == (99.0, 99.0, 0.0)
    assert ("final score", 32) not in measured  # clocked, and the machine was shared
    assert "my" in lines[0].split()
    assert "score" in lines[1].split()
    assert lines[2].split()[lines[1].split().index("score")] == "8"
