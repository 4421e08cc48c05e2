"""The study in TensorBoard, through the HTTP endpoints that a browser asks."""

import json
import math
import threading
from dataclasses import replace

import pytest
from invented.written import STARTED, config, points, record, write_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard_http import Dashboard, eventually, number_of, tensorboard_process

from batchlab.recording.disk import locked
from batchlab.recording.run_folder import write_record
from batchlab.records import RunStatus
from batchlab.tensorboard import study_view
from batchlab.tensorboard.study_view import rebuild

# last validation loss by batch size and seed
LOSSES = {(8, 0): 0.25, (8, 1): 0.5, (32, 0): 0.375, (256, 0): 0.625}


def fabricate(study):
    for (batch_size, seed), loss in LOSSES.items():
        measured = points(batch_size, loss)
        made = record(
            batch_size=batch_size,
            seed=seed,
            train_seconds=4.0,
            final={"val/loss": loss, "speed/examples_per_second": 10.0 * batch_size},
            best={"val/loss": {"value": loss / 2, "examples": 1024}},
        )
        write_run(study, made, measured)
    diverged = record(
        run_id="bs64-s0-diverged",
        batch_size=64,
        status=RunStatus.DIVERGED,
        config=config(batch_size=64, optimizer={"_target_": "torch.optim.SGD", "momentum": 0.9, "clip_norm": "auto"}),
        final={"val/loss": math.nan, "val/accuracy": 0.1},
    )
    nan = [replace(points(64, 0.0)[0], value=math.nan), replace(points(64, 0.0)[0], name="val/accuracy", value=0.1)]
    write_run(study, diverged, nan)
    write_run(study, record(run_id="bs512-s0-oom", batch_size=512, status=RunStatus.OOM), [])
    rebuild(study)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "fabricated"
    fabricate(folder)
    return folder


@pytest.fixture(scope="module")
def dashboard(study):
    return Dashboard.of(study)


CURVE = "tensorboard/by_batch_size/lr0.05-linear-fp32"


def test_the_dashboard_lists_the_runs_and_the_study_and_no_others(dashboard):
    runs = [f"bs{batch_size}-s{seed}" for batch_size, seed in LOSSES]

    assert sorted(dashboard.runs()) == sorted([*runs, "bs64-s0-diverged", "bs512-s0-oom", "tensorboard", CURVE])


def test_a_runs_curve_is_drawn_over_examples_in_training_seconds(dashboard):
    curve = dashboard.scalars("bs32-s0", "val/loss")

    assert [(step, value) for _, step, value in curve] == [(0, 2), (512, 1.5), (1024, 1), (1536, 0.75), (2048, 0.375)]
    assert [time - STARTED for time, _, _ in curve] == [0, 1, 2, 3, 4]
    assert [step for _, step, _ in dashboard.scalars("bs32-s0", "val/loss_by_step")] == [0, 16, 32, 48, 64]
    assert math.isnan(dashboard.scalars("bs64-s0-diverged", "val/loss")[0][2])


def test_the_curves_by_batch_size_are_means_over_seeds_of_completed_runs(dashboard):
    drawn = {tag: [point[1:] for point in dashboard.scalars(CURVE, tag)] for tag in dashboard.tags()[CURVE]}

    assert drawn == {
        "by_batch_size/val_loss": [(8, 0.375), (32, 0.375), (256, 0.625)],
        "by_batch_size/best_val_loss": [(8, 0.1875), (32, 0.1875), (256, 0.3125)],
        "by_batch_size/examples_per_second": [(8, 80), (32, 320), (256, 2560)],
        "by_batch_size/train_seconds": [(8, 4), (32, 4), (256, 4)],
    }


def test_the_table_has_typed_columns_and_the_metrics_that_exist(dashboard):
    experiment = dashboard.experiment()

    columns = {info["name"]: info for info in experiment["hparamInfos"]}
    numbers = {name for name, info in columns.items() if info["type"] == "DATA_TYPE_FLOAT64"}
    assert {"batch_size", "lr", "accumulate", "micro_batch_size"} <= numbers
    assert columns["lr_scaling"]["type"] == columns["precision"]["type"] == "DATA_TYPE_STRING"
    assert columns["optimizer.nesterov"]["type"] == "DATA_TYPE_BOOL"
    assert {name for name, info in columns.items() if info.get("differs")} == {"batch_size", "micro_batch_size"}
    assert "model.hidden" not in columns  # the same in every run
    assert "seed" not in columns  # a row is all of them
    assert columns["batch_size"]["domainDiscrete"] == [8, 32, 64, 256, 512]
    assert columns["optimizer.nesterov"]["domainDiscrete"] == [False]
    metrics = [info["name"]["tag"] for info in experiment["metricInfos"]]
    assert metrics == ["val/loss", "val/accuracy", "speed/examples_per_second"]


def test_a_row_of_the_table_is_a_batch_size_with_its_seeds_averaged(dashboard):
    rows = {group["hparams"]["batch_size"]: group for group in dashboard.session_groups()}

    assert set(rows) == {8, 32, 64, 256, 512}
    assert sorted(session["name"] for session in rows[8]["sessions"]) == ["bs8-s0", "bs8-s1"]
    assert number_of(rows[8], "val/loss") == 0.375
    assert number_of(rows[32], "speed/examples_per_second") == 320
    assert math.isnan(number_of(rows[64], "val/loss"))
    assert rows[512].get("metricValues", []) == []
    status = {size: group["sessions"][0]["status"] for size, group in rows.items()}
    assert status == {8: "STATUS_SUCCESS", 32: "STATUS_SUCCESS", 256: "STATUS_SUCCESS"} | dict.fromkeys(
        (64, 512), "STATUS_FAILURE"
    )


def test_no_secret_is_reported_over_http(dashboard):
    output = str(dashboard.session_groups(columns=[])) + str(dashboard.experiment())

    assert "***" in output
    assert "sk-123" not in output


def test_the_page_of_charts_names_tags_that_are_drawn_and_only_those(dashboard):
    charts = dashboard.charts()

    assert {title: list(inside) for title, inside in charts.items()} == {
        "Learning": [
            "validation loss over examples",
            "validation loss over optimizer steps",
            "accuracy over examples",
        ],
        "Cost": ["examples per second"],
        "By batch size (the step is the batch size)": ["validation loss", "examples per second", "training seconds"],
    }
    for inside in charts.values():
        for title, (regex,) in inside.items():
            assert [run for run in dashboard.runs() if dashboard.drawn(run, regex)], title
    assert dashboard.drawn("bs32-s0", charts["Learning"]["validation loss over examples"][0]) == ["val/loss"]


def test_a_real_tensorboard_with_its_fast_loader_tells_the_same_and_follows_a_rebuild(tmp_path):
    def comparable(groups):
        return json.dumps(sorted(groups, key=lambda group: group["name"]), sort_keys=True)

    fabricate(tmp_path)
    dashboard = Dashboard.of(tmp_path)
    with tensorboard_process(tmp_path) as real:
        wanted = comparable(dashboard.session_groups())
        eventually(real.session_groups, lambda groups: comparable(groups) == wanted)
        assert eventually(real.charts, bool) == dashboard.charts()
        assert eventually(lambda: real.tags().get(CURVE), bool) == dashboard.tags()[CURVE]
        assert real.experiment() == dashboard.experiment()

        write_run(tmp_path, record(batch_size=16, final={"val/loss": 3.0}), points(16, 3.0))
        rebuild(tmp_path)

        eventually(
            lambda: [point[1:] for point in real.scalars(CURVE, "by_batch_size/val_loss")],
            lambda curve: curve == [(8, 0.375), (16, 3), (32, 0.375), (256, 0.625)],
        )


def test_a_rebuild_replaces_the_whole_view_and_leaves_nothing_aside(tmp_path):
    first = write_run(tmp_path, record(batch_size=8, final={"val/loss": 1.0}), [])
    rebuild(tmp_path)
    write_record(tmp_path / first.run_id, replace(first, config=config(lr=0.1), final={"val/loss": 2.0}))
    rebuild(tmp_path)

    assert [path.name for path in (tmp_path / "tensorboard" / "by_batch_size").iterdir()] == ["lr0.1-linear-fp32"]
    curve = EventAccumulator(str(tmp_path / "tensorboard/by_batch_size/lr0.1-linear-fp32")).Reload()
    assert [(p.step, p.value) for p in curve.Scalars("by_batch_size/val_loss")] == [(8, 2.0)]
    assert sorted(path.name for path in tmp_path.glob(".*")) == [".tensorboard.lock"]


def test_a_rebuild_that_fails_leaves_the_old_view(tmp_path, monkeypatch):
    write_run(tmp_path, record(final={"val/loss": 1.0}), [])
    rebuild(tmp_path)
    before = sorted(path.relative_to(tmp_path) for path in (tmp_path / "tensorboard").rglob("*"))
    (tmp_path / ".tensorboard-killed" / "x").mkdir(parents=True)

    def full(*requested):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(study_view, "layout", full)
    with pytest.raises(OSError, match="No space"):
        rebuild(tmp_path)

    assert sorted(path.relative_to(tmp_path) for path in (tmp_path / "tensorboard").rglob("*")) == before
    assert [path.name for path in tmp_path.glob(".tensorboard-*")] == []


def test_a_rebuild_waits_for_another_one(tmp_path):
    write_run(tmp_path, record(final={"val/loss": 1.0}), [])
    rebuilding = threading.Thread(target=rebuild, args=(tmp_path,))

    with locked(tmp_path / ".tensorboard.lock"):
        rebuilding.start()
        rebuilding.join(timeout=0.5)
        assert not (tmp_path / "tensorboard").exists()
    rebuilding.join(timeout=60)

    assert (tmp_path / CURVE).is_dir()


def test_a_study_without_runs_is_left_alone(tmp_path):
    rebuild(tmp_path)
    rebuild(tmp_path / "nowhere")

    assert not (tmp_path / "tensorboard").exists()
    assert not (tmp_path / "nowhere").exists()


def test_a_study_of_nothing_but_running_points_has_the_metrics_of_their_journals(tmp_path):
    write_run(tmp_path, record(status=RunStatus.RUNNING), points(32, 0.5))
    rebuild(tmp_path)

    metrics = [info["name"]["tag"] for info in Dashboard.of(tmp_path).experiment()["metricInfos"]]
    assert metrics == ["val/loss", "speed/examples_per_second"]


def test_the_metrics_of_the_table_come_group_by_group_behind_the_first_of_them(tmp_path):
    order = ["val/loss", "speed/examples_per_second", "val/top5", "speed/seconds_per_step", "memory/device_used_bytes"]
    order += ["memory/peak_resident_bytes", "train/loss", "clean_train/loss", "gap/loss", "noise/scale_examples.a"]
    order += ["noise_micro_batches/scale_examples", "sharpness/trace", "sharpness_at_loss_0.5/trace", "a/undeclared"]
    write_run(tmp_path, record(final=dict.fromkeys(sorted(order), 1.0)), [])
    rebuild(tmp_path)

    metrics = [info["name"]["tag"] for info in Dashboard.of(tmp_path).experiment()["metricInfos"]]
    assert metrics == order


def test_an_option_that_is_a_number_here_and_a_text_there_hides_no_run(tmp_path):
    for batch_size, hidden in ((8, 64), (32, [64, 64])):
        model = {"_target_": "my_net.Net", "hidden": hidden}
        write_run(tmp_path, record(batch_size=batch_size, config=config(model=model)), points(batch_size, 0.5))
    rebuild(tmp_path)
    dashboard = Dashboard.of(tmp_path)

    column = {info["name"]: info for info in dashboard.experiment()["hparamInfos"]}["model.hidden"]
    assert (column["type"], column["domainDiscrete"]) == ("DATA_TYPE_STRING", [64, "[64, 64]"])
    for chosen in ([64.0, "[64, 64]"], [64.0], ["[64, 64]"]):
        rows = dashboard.session_groups(columns=[{"hparam": "model.hidden", "filterDiscrete": chosen}])
        assert sorted((row["hparams"]["model.hidden"] for row in rows), key=str) == sorted(chosen, key=str)


def test_a_damaged_run_is_reported_and_the_others_are_shown(tmp_path):
    write_run(tmp_path, record(batch_size=8, final={"val/loss": 1.0}), [])
    (tmp_path / "bad").mkdir()
    write_record(tmp_path / "bad", record())
    (tmp_path / "bad" / "record.json").write_text("{")
    unreadable = []

    rebuild(tmp_path, unreadable)

    assert len(unreadable) == 1
    assert (tmp_path / CURVE).is_dir()
