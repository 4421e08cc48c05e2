"""A study over several GPUs: which GPU it was is not a setting, and only times on one model are compared."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from invented.folders import reached, write_run
from rich.console import Console

from batchlab.records import Unknown
from batchlab.report.claims import judge_claims
from batchlab.report.compare.comparison import compare
from batchlab.report.fits.costs import Measured, TimeToTarget
from batchlab.report.fits.fits import GroupFits, fits
from batchlab.report.making import make
from batchlab.report.render.html import as_html
from batchlab.report.render.machine_readable import as_json
from batchlab.report.render.markdown import as_markdown
from batchlab.report.render.terminal import show
from batchlab.report.tables.study import read_study

FAST, SLOW = "NVIDIA A100", "NVIDIA L4"


def plant(
    study: Path, size: int, seed: int, model: str | None, *, speed: float, device: str = "cuda", **more: Any
) -> str:
    final = {
        "speed/examples_per_second": speed,
        "speed/seconds_per_step": size / speed,
        "memory/peak_allocated_bytes": 1e6 * size,
        "memory/saved_for_backward_bytes": 1e5 * size,
        "val/loss": 0.3 + 0.01 * seed,
    }
    config = {"device": device} | more.pop("config", {})
    environment = {} if model is None else {"device_name": model, "cpu": "a processor that does not matter"}
    best = {"val/loss": {"value": 0.3, "examples": 1}}
    return write_run(study, size, seed, final=final, best=best, config=config, environment=environment, **more)


def only_group(study: Path) -> GroupFits:
    (group,) = fits(read_study(study)).groups
    return group


def sizes_of(found: Measured | str) -> list[int]:
    assert isinstance(found, Measured)
    return [size for size, _ in found.sizes]


def test_runs_that_older_versions_put_on_cuda_0_to_3_are_one_group(tmp_path: Path) -> None:
    for place, size in enumerate((8, 32, 128, 512)):
        for seed in (0, 1):
            plant(tmp_path, size, seed, FAST, speed=1000.0, device=f"cuda:{(place + seed) % 4}")

    group = only_group(tmp_path)

    assert (group.name, group.batch_sizes, group.seeds) == ("", (8, 32, 128, 512), (0, 1))
    assert "It is based on 2 seeds and 4 batch sizes" in make(tmp_path).recommendation.sure


def test_seconds_and_bytes_are_those_of_the_model_with_most_runs_of_the_group(tmp_path: Path) -> None:
    for size in (8, 32, 128):
        plant(tmp_path, size, 0, SLOW, speed=100.0 * size)
    for size in (128, 512):
        plant(tmp_path, size, 1, FAST, speed=1e6)

    group = only_group(tmp_path)

    for found in (group.examples_per_second, group.seconds_per_step, group.peak_bytes):
        assert sizes_of(found) == [8, 32, 128]
        assert isinstance(found, Measured)
        assert (found.shared, found.elsewhere) == (0, 2)
    assert isinstance(group.examples_per_second, Measured)
    assert dict(group.examples_per_second.sizes)[128].value == 12_800.0
    assert not isinstance(group.pareto, Unknown)
    assert [choice.batch_size for choice in group.pareto] == [8, 32, 128]
    assert group.batch_sizes == (8, 32, 128, 512)  # what does not depend on time includes all


def test_a_run_without_a_device_name_is_still_compared(tmp_path: Path) -> None:
    plant(tmp_path, 8, 0, None, speed=100.0)
    plant(tmp_path, 32, 0, FAST, speed=400.0)

    assert sizes_of(only_group(tmp_path).examples_per_second) == [8, 32]


def test_a_processor_is_a_model_too(tmp_path: Path) -> None:
    for size, cpu in ((8, "EPYC"), (32, "EPYC"), (128, "Xeon")):
        final = {"speed/examples_per_second": 100.0}
        write_run(tmp_path, size, final=final, config={"device": "cpu"}, environment={"cpu": cpu})

    assert sizes_of(only_group(tmp_path).examples_per_second) == [8, 32]


def test_the_time_to_a_target_is_of_one_model(tmp_path: Path) -> None:
    for size in (8, 32):
        for seed, (model, seconds) in enumerate(((SLOW, 10.0), (SLOW, 12.0), (FAST, 1.0))):
            target = reached(100, size, seconds)
            plant(tmp_path, size, seed, model, speed=100.0, target=target, train_seconds=seconds)

    times = only_group(tmp_path).time_to_target

    assert isinstance(times, TimeToTarget)
    assert [(size, seconds.value, seconds.n) for size, seconds in times.sizes] == [(8, 11.0, 2), (32, 11.0, 2)]


@pytest.mark.parametrize(("other", "compared"), [(FAST, True), (SLOW, False)])
def test_a_precision_is_compared_with_fp32_on_the_same_model(other: str, compared: bool, tmp_path: Path) -> None:
    for seed in range(3):
        for precision, model, speed in (("fp32", FAST, 100.0 + seed), ("bf16", other, 400.0 + seed)):
            plant(
                *(tmp_path, 32, seed, model),
                speed=speed,
                config={"precision": precision},
                curve=[
                    ("val/loss", 1, 1.0, 0.3),
                    ("speed/examples_per_second", 1, 1.0, speed),
                    ("memory/peak_allocated_bytes", 1, 1.0, 1e6 + seed if precision == "bf16" else 3e6 + seed),
                    ("memory/saved_for_backward_bytes", 1, 1.0, 1e5 if precision == "bf16" else 3e5),
                ],
            )
    study = read_study(tmp_path)

    (claim,) = [claim for claim in judge_claims(study) if claim.id == "mixed-precision"]

    compared_quantities = " ".join(evidence.what for evidence in claim.evidence)
    assert ("memory/peak_allocated_bytes" in compared_quantities) is compared
    assert "memory/saved_for_backward_bytes" in compared_quantities
    assert ("x the speed" in claim.why) is compared


def test_every_form_of_the_report_names_the_devices(tmp_path: Path) -> None:
    for size in (8, 32):
        plant(tmp_path, size, 0, SLOW, speed=100.0)
    sentence = f"Measured on {SLOW}."
    report = make(tmp_path)
    console = Console(file=io.StringIO(), width=300)
    show(report, console)
    assert isinstance(console.file, io.StringIO)

    assert sentence in console.file.getvalue()
    assert sentence in as_markdown(report, ())
    assert sentence in as_html(report, ())
    assert json.loads(as_json(report, ()))["measured_on"] == {SLOW: 2}

    plant(tmp_path, 128, 0, FAST, speed=1e6)
    page = as_html(make(tmp_path), ())
    assert f"Measured on {SLOW} (2 runs), {FAST} (1 run): speeds and memory peaks of different models are" in page
    assert "; without 1 run on another model of device." in page


@pytest.mark.parametrize(("second", "compared"), [(SLOW, True), (FAST, False)])
def test_two_studies_are_compared_by_clock_and_memory_on_one_model(second: str, compared: bool, tmp_path: Path) -> None:
    for name, model in (("a", SLOW), ("b", second)):
        for size in (8, 32):
            plant(tmp_path / name, size, 0, model, speed=100.0)

    found = compare((read_study(tmp_path / "a"), read_study(tmp_path / "b")), ((), ()))

    quantities = {row.quantity for row in found.measured}
    assert {"best val loss", "bytes saved for backward"} <= quantities
    for clocked in ("examples/s", "training seconds", "peak bytes, CUDA"):
        assert (clocked in quantities) is compared
    settings = {setting.name: (*setting.first, *setting.second) for setting in found.settings}
    assert settings.get("environment.device_name") == (None if compared else (SLOW, FAST))
    assert (
        "2 pairs of 2 ran on different devices: their seconds and peaks are not compared." in found.notes
    ) is not compared


def test_a_search_on_another_model_of_gpu_says_nothing_of_these_runs(tmp_path: Path) -> None:
    plant(tmp_path, 8, 0, FAST, speed=100.0)
    plant(tmp_path, 32, 0, FAST, speed=200.0)
    run = read_study(tmp_path).requested.iloc[0].to_dict()
    config = {"device": "cuda:1", "precision": "fp32"} | {
        group: {key.partition(".")[2]: value for key, value in run.items() if key.startswith(f"{group}.")}
        for group in ("data", "model", "optimizer")
    }
    (tmp_path / "find").mkdir()

    def recommended(model: str) -> str:
        probe = {"size": 64, "outcome": "fits", "accumulate": 1, "step_seconds": []}
        content = {"status": "found", "config": config, "environment": {"device_name": model}, "largest": 64}
        (tmp_path / "find/x.json").write_text(json.dumps(content | {"probes": [probe]}))
        return make(tmp_path).recommendation.text

    assert "A micro-batch of 64 fits into the free memory of the device; nothing larger was tried." in recommended(FAST)
    assert "The largest batch that fits was not searched for" in recommended(SLOW)
