"""A run's curves: read back through TensorBoard's own reader."""

import math
import re
import resource
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
from invented.written import STARTED
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
from tensorboard.util.tensor_util import make_ndarray

from batchlab.records import Measurement, RunStatus
from batchlab.records.declared import Quantities
from batchlab.tensorboard.event_file import tag_of
from batchlab.tensorboard.events import RunEvents, remove_events
from batchlab.tensorboard.layout import layout


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def open_events(folder: Path, budget: int = 2048, **hparams: object) -> RunEvents:
    return RunEvents(folder, run_id="bs8", group="g", hparams=hparams, started=STARTED, budget=budget)


def at(examples: Sequence[int], name: str = "train/loss") -> list[Measurement]:
    return [Measurement(name, float(n), step=n // 8, examples=n, train_seconds=n / 100) for n in examples]


def session(folder: Path, tag: str) -> bytes:
    return bytes(read(folder).SummaryMetadata(tag).plugin_data.content)


def test_a_curve_lies_over_examples_and_its_time_is_training_time(tmp_path):
    events = open_events(tmp_path)
    for measurement in at([0, 512, 1024], "val/loss"):
        events.add(measurement)
    events.close(RunStatus.COMPLETED)

    curve = read(tmp_path).Scalars("val/loss")
    assert [(p.step, p.value, p.wall_time - STARTED) for p in curve] == [
        (0, 0.0, 0.0),
        (512, 512.0, pytest.approx(5.12, abs=1e-6)),
        (1024, 1024.0, pytest.approx(10.24, abs=1e-6)),
    ]
    assert [(p.step, p.value) for p in read(tmp_path).Scalars("val/loss_by_step")] == [(0, 0), (64, 512), (128, 1024)]


def test_the_ends_of_an_interval_are_curves_next_to_it(tmp_path):
    events = open_events(tmp_path)
    events.add(Measurement("noise/scale_examples", 90.0, 4, 512, 0.0, low=70.0, high=math.inf, n=10))
    events.add(Measurement("val/loss", 0.5, 4, 512, 0.0))
    events.close(RunStatus.COMPLETED)

    seen = read(tmp_path)
    ends = {tag: [(p.step, p.value) for p in seen.Scalars(tag)] for tag in seen.Tags()["scalars"]}
    assert ends == {
        "noise/scale_examples": [(512, 90.0)],
        "noise/scale_examples_low": [(512, 70.0)],
        "noise/scale_examples_high": [(512, math.inf)],
        "val/loss": [(512, 0.5)],
        "val/loss_by_step": [(4, 0.5)],
    }


def test_a_chart_of_a_curve_whose_every_point_has_an_interval_shows_its_band():
    names = ("noise/scale_examples", "gap/loss", "val/loss")
    ends = [f"{name}{end}" for name in (names[0], names[2]) for end in ("_low", "_high")]
    summary = layout([*names, *ends], Quantities())
    page = Layout.FromString(make_ndarray(summary.value[0].tensor).item())
    charts = [chart for category in page.category for chart in category.chart]

    (banded,) = [chart.margin.series[0] for chart in charts if chart.HasField("margin")]
    assert (banded.value, banded.lower, banded.upper) == (names[0], f"{names[0]}_low", f"{names[0]}_high")
    assert sorted(chart.multiline.tag[0] for chart in charts if chart.HasField("multiline")) == [
        "^gap/loss$",
        "^val/loss$",
    ]


def test_points_can_be_seen_while_the_run_continues(tmp_path):
    events = open_events(tmp_path, batch_size=8)
    events.add(at([8])[0])

    assert [p.step for p in read(tmp_path).Scalars("train/loss")] == [8]
    assert metadata.parse_session_start_info_plugin_data(session(tmp_path, metadata.SESSION_START_INFO_TAG))
    events.close(RunStatus.COMPLETED)


@pytest.mark.parametrize(("budget", "every"), [(200_000, 8), (4001, 1), (1999, 1), (2000, 1), (2048, 1024)])
def test_a_curve_has_at_most_two_thousand_points_and_always_its_last(tmp_path, budget, every):
    events = open_events(tmp_path, budget)
    examples = [*range(0, budget, every), budget]
    for measurement in at(examples, "val/loss"):
        events.add(measurement)
    events.close(RunStatus.COMPLETED)

    steps = [point.step for point in read(tmp_path).Scalars("val/loss")]
    assert len(steps) <= 2000
    assert len(steps) >= min(len(examples) * 0.99, 999)
    assert (steps[0], steps[-1]) == (0, budget)
    assert steps == sorted(set(steps))
    assert len(read(tmp_path).Scalars("val/loss_by_step")) == len(steps)


def test_the_last_points_of_a_run_that_stopped_early_are_kept_for_each_curve(tmp_path):
    events = open_events(tmp_path, budget=1_000_000)
    for measurement in (*at([0, 8, 16]), *at([0, 8], "val/loss"), *at([24])):
        events.add(measurement)
    events.close(RunStatus.DIVERGED)

    assert [p.step for p in read(tmp_path).Scalars("train/loss")] == [0, 24]
    assert [p.step for p in read(tmp_path).Scalars("val/loss")] == [0, 8]


def test_a_session_keeps_the_type_of_each_option(tmp_path):
    events = open_events(
        tmp_path,
        batch_size=8,
        lr=0.05,
        nesterov=False,
        precision="fp32",
        clip_norm=None,
        x=math.nan,
        **{"data.api_key": "sk-123", "hidden": [64, 64]},
    )
    events.close(RunStatus.COMPLETED)

    start = metadata.parse_session_start_info_plugin_data(session(tmp_path, metadata.SESSION_START_INFO_TAG))
    kinds = {
        name: (value.WhichOneof("kind"), str(value).split(": ")[1].strip()) for name, value in start.hparams.items()
    }
    assert kinds == {
        "batch_size": ("number_value", "8"),
        "lr": ("number_value", "0.05"),
        "nesterov": ("bool_value", "false"),
        "precision": ("string_value", '"fp32"'),
        "data.api_key": ("string_value", '"***"'),
        "hidden": ("string_value", '"[64, 64]"'),
    }
    assert (start.group_name, start.model_uri, start.start_time_secs) == ("g", "bs8", STARTED)


@pytest.mark.parametrize("status", list(RunStatus))
def test_a_session_ends_in_success_only_when_it_is_completed(tmp_path, status):
    events = open_events(tmp_path)
    events.close(status)
    events.close(RunStatus.COMPLETED)

    end = metadata.parse_session_end_info_plugin_data(session(tmp_path, metadata.SESSION_END_INFO_TAG))
    assert end.status == (STATUS_SUCCESS if status is RunStatus.COMPLETED else STATUS_FAILURE)


def test_values_that_are_not_finite_or_too_large_for_its_numbers_are_drawn_as_such(tmp_path):
    events = open_events(tmp_path)
    for examples, value in enumerate((math.nan, math.inf, -math.inf, 1e300)):
        events.add(Measurement("val/loss", value, 0, examples * 512, 0.0))
    events.close(RunStatus.DIVERGED)

    values = [point.value for point in read(tmp_path).Scalars("val/loss")]
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf, math.inf]


def test_a_run_started_again_has_nothing_of_its_first_attempt(tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    first = open_events(tmp_path)
    first.add(at([512])[0])

    remove_events(tmp_path)
    second = open_events(tmp_path)
    second.add(at([8])[0])
    second.close(RunStatus.COMPLETED)
    first.close(RunStatus.KILLED)

    assert [p.step for p in read(tmp_path).Scalars("train/loss")] == [8]
    assert (tmp_path / "metrics.jsonl").exists()


def test_every_writer_opens_a_file_of_its_own_in_place_of_the_old_one_and_names_no_machine(tmp_path):
    seen = []
    for _ in range(3):
        open_events(tmp_path).close(RunStatus.COMPLETED)
        seen += [path.name for path in tmp_path.iterdir()]

    assert len(set(seen)) == len(seen) == 3
    assert not [name for name in seen if socket.gethostname() in name]


def test_a_full_disk_is_reported_once_and_costs_the_curves_alone(tmp_path, capsys):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    events = open_events(tmp_path / "bs8", batch_size=8)
    try:
        size = sum(path.stat().st_size for path in (tmp_path / "bs8").iterdir())
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, before[1]))
        for measurement in at(range(0, 2048, 8)):
            events.add(measurement)
        events.close(RunStatus.COMPLETED)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)

    reported = capsys.readouterr().err.splitlines()
    assert len(reported) == 1
    assert reported[0].startswith("TensorBoard events of bs8 end here: ")
    assert read(tmp_path / "bs8").Scalars("train/loss")[0].step == 0


def test_a_folder_that_takes_no_file_is_reported_once_as_well(tmp_path, capsys):
    (tmp_path / "bs8").write_text("in the way")

    events = open_events(tmp_path / "bs8")
    events.add(at([8])[0])
    events.close(RunStatus.COMPLETED)

    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("name", ["", "/", "//a", "a b", "zu/groß", "\n\x00", "\udcff", "a\\b", "日本", "a/b.c-d_e"])
def test_any_name_becomes_a_tag_of_allowed_characters(name):
    tag = tag_of(name)

    assert re.fullmatch(r"[-A-Za-z0-9_.][-A-Za-z0-9_./]*", tag)
    assert tag_of(tag) == tag


def test_names_of_the_contract_are_tags_already():
    assert tag_of("memory/peak_allocated_bytes") == "memory/peak_allocated_bytes"
    assert tag_of("/val/top 5 (%)") == "val/top_5____"
