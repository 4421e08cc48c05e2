"""Seconds, bytes, fronts and the three budgets, against recomputations with pandas alone."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas
import pytest
import scipy.stats
from invented.folders import reached, write_run

from batchlab.records import Unknown
from batchlab.report.fits.costs import Measured
from batchlab.report.fits.fits import GroupFits, fits
from batchlab.report.render.fits_in_words import fits_in_words
from batchlab.report.tables.study import read_study
from batchlab.science.scaling.knee import Knee


def only_group(study: Path) -> GroupFits:
    (group,) = fits(read_study(study)).groups
    return group


def timed(study: Path, size: int, seed: int, seconds: float, peak: float, **fields: Any) -> str:
    final = {
        "speed/seconds_per_step": seconds,
        "speed/examples_per_second": size / seconds,
        "memory/peak_resident_bytes": peak,
    }
    return write_run(study, size, seed, final=final, **fields)


def on_a_gpu(study: Path, size: int, seed: int, growth: float | None, busy: float | None = None) -> str:
    """A run with 700 MiB of data on the device; None: from a version that did not count it separately."""
    held = 700 * 2.0**20
    final = {"memory/peak_allocated_bytes": held + (size * 2.0**20 if growth is None else growth)}
    final |= {} if growth is None else {"memory/peak_growth_bytes": growth}
    final |= {"speed/examples_per_second": 100.0 * size}
    return write_run(study, size, seed, final=final | ({} if busy is None else {"speed/device_busy_share": busy}))


def test_bytes_are_what_training_added_without_the_data(tmp_path: Path) -> None:
    for size in (8, 16, 32):
        on_a_gpu(tmp_path, size, 0, growth=size * 2.0**20)

    peak = only_group(tmp_path).peak_bytes

    assert isinstance(peak, Measured)
    assert peak.name == "memory/peak_growth_bytes"
    assert {size: mean.value for size, mean in peak.sizes} == {size: size * 2.0**20 for size in (8, 16, 32)}


def test_older_and_newer_runs_are_compared_by_what_both_counted(tmp_path: Path) -> None:
    for size in (8, 16, 32):
        on_a_gpu(tmp_path, size, 0, growth=None if size == 8 else size * 2.0**20)

    peak = only_group(tmp_path).peak_bytes

    assert isinstance(peak, Measured)
    assert peak.name == "memory/peak_allocated_bytes"
    assert {size: mean.value for size, mean in peak.sizes} == {size: (700 + size) * 2.0**20 for size in (8, 16, 32)}


def test_sizes_at_which_the_gpu_waits_for_python_are_listed_with_the_knee(tmp_path: Path) -> None:
    for size, busy in {8: 0.2, 16: 0.4, 32: 0.69, 64: 0.7, 128: 0.98}.items():
        for seed in (0, 1):
            on_a_gpu(tmp_path, size, seed, growth=1e6, busy=busy + (0.01 if seed else -0.01))

    group = only_group(tmp_path)

    assert dict(group.busy) == pytest.approx({8: 0.2, 16: 0.4, 32: 0.69, 64: 0.7, 128: 0.98})
    (line,) = [line.text for line in fits_in_words(fits(read_study(tmp_path))) if line.label == "Throughput knee"]
    text = "Launch-bound, so a larger batch saves time on the host and not on the GPU"
    assert f"{text}: 8 (busy 20% of the time), 16 (busy 40% of the time), 32 (busy 69% of the time)." in line


def test_seconds_and_bytes_are_lines_through_the_means_of_each_size(tmp_path: Path) -> None:
    seconds = {8: (0.010, 0.012), 32: (0.019, 0.021), 128: (0.051, 0.049), 512: (0.160, 0.170)}
    for size, pair in seconds.items():
        for seed, each in enumerate(pair):
            timed(tmp_path, size, seed, each, 5e6 + 3000 * size + 500 * (-1) ** size.bit_length())

    group = only_group(tmp_path)

    assert isinstance(group.seconds_per_step, Measured)
    assert isinstance(group.peak_bytes, Measured)
    means = pandas.DataFrame(seconds).mean()
    assert {size: mean.value for size, mean in group.seconds_per_step.sizes} == pytest.approx(means.to_dict())
    assert {mean.n for _, mean in group.seconds_per_step.sizes} == {2}
    # Ordinary least squares of 1 = a/t + b B/t, by its normal equations.
    table = pandas.DataFrame({"x": 1 / means, "z": means.index / means})
    det = (table.x**2).sum() * (table.z**2).sum() - (table.x * table.z).sum() ** 2
    a = ((table.z**2).sum() * table.x.sum() - (table.x * table.z).sum() * table.z.sum()) / det
    assert group.seconds_per_step.line is not None
    assert group.seconds_per_step.line.at_zero.value == pytest.approx(a)
    line = group.peak_bytes.line
    peaks = [5e6 + 3000 * size + 500 * (-1) ** size.bit_length() for size in seconds]
    oracle = scipy.stats.linregress(list(seconds), peaks)
    assert line is not None
    assert (line.per_unit.value, line.at_zero.value) == pytest.approx((oracle.slope, oracle.intercept))
    half = scipy.stats.t.ppf(0.975, 2) * oracle.stderr
    assert line.per_unit.high == pytest.approx(oracle.slope + half)
    assert len(group.peak_bytes.runs) == 8


def test_only_runs_with_the_machine_to_themselves_are_clocked(tmp_path: Path) -> None:
    kept = [timed(tmp_path, size, 0, size / 1000, 1e6 * size) for size in (8, 16)]
    timed(tmp_path, 8, 1, 99.0, 99e9, shared_machine=True)

    group = only_group(tmp_path)

    for part in (group.seconds_per_step, group.peak_bytes, group.examples_per_second):
        assert isinstance(part, Measured)
        assert (part.shared, set(part.runs)) == (1, set(kept))
        assert part.left_out == ["1 run that shared the machine"]
        assert {mean.n for _, mean in part.sizes} == {1}


def test_where_all_shared_the_machine_it_says_so(tmp_path: Path) -> None:
    for size in (8, 16):
        timed(tmp_path, size, 0, 0.1, 1e6, shared_machine=True, target=reached(5, size))

    group = only_group(tmp_path)

    assert isinstance(group.seconds_per_step, Unknown)
    assert "shared the machine" in group.seconds_per_step.why
    assert isinstance(group.time_to_target, Unknown)
    assert isinstance(group.pareto, Unknown)


def test_the_memory_is_that_of_the_micro_batch(tmp_path: Path) -> None:
    for size in (8, 16, 64):
        timed(tmp_path, size, 0, 0.1, 1e6 + 10 * min(size, 16), micro_batch_sizes=[min(size, 16)] * max(1, size // 16))

    peak = only_group(tmp_path).peak_bytes

    assert isinstance(peak, Measured)
    assert [size for size, _ in peak.sizes] == [8, 16]
    assert peak.line is not None
    assert (peak.line.at_zero.value, peak.line.per_unit.value) == pytest.approx((1e6, 10))


def test_a_run_that_diverged_was_as_fast_as_any_and_one_that_did_not_fit_was_not(tmp_path: Path) -> None:
    for size, status in ((8, "completed"), (16, "diverged"), (32, "oom")):
        timed(tmp_path, size, 0, 0.1, 1e6, status=status)

    speed = only_group(tmp_path).examples_per_second

    assert isinstance(speed, Measured)
    assert [size for size, _ in speed.sizes] == [8, 16]


def test_the_knee_is_where_the_speed_is_within_a_tenth_of_the_best(tmp_path: Path) -> None:
    for size, speed in ((8, 100.0), (16, 500.0), (32, 901.0), (64, 1000.0)):
        timed(tmp_path, size, 0, size / speed, 1e6)

    found = only_group(tmp_path).knee

    assert isinstance(found, Knee)
    assert (found.size, found.best_size, found.best_speed) == (32, 64, pytest.approx(1000))


def test_the_front_leaves_out_what_another_size_beats_in_all(tmp_path: Path) -> None:
    for size, seconds, peak, loss in ((8, 9.0, 10, 0.1), (16, 5.0, 20, 0.2), (32, 6.0, 30, 0.3), (64, 2.0, 40, 0.4)):
        for seed, off in enumerate((-0.01, 0.01)):
            final = {"memory/peak_resident_bytes": peak}
            best = {"val/loss": {"value": loss + off, "examples": 9}}
            write_run(tmp_path, size, seed, final=final, best=best, train_seconds=seconds)

    choices = only_group(tmp_path).pareto

    assert not isinstance(choices, Unknown)
    assert [(c.batch_size, c.on_front) for c in choices] == [(8, True), (16, True), (32, False), (64, True)]
    first = choices[0]
    assert (first.seconds, first.device_seconds, first.memory_bytes) == (9.0, 9.0, 10)
    assert first.val_loss == pytest.approx(0.1)


def curve_of(size: int, seed: int) -> list[tuple[str, int, float, float]]:
    """Validated every 512 examples: the loss falls with examples, and faster at small sizes; 1 ms an example at 8."""
    points = []
    for i in range(1 + 2048 // 512):
        step, examples = 512 * i // size, 512 * i
        loss = 2 / (1 + examples / 512 * (1 + 8 / size)) + 0.01 * seed
        points.append(("val/loss", step, examples / 1000 * (8 / size) ** 0.5, loss))
        if i:
            points.append(("train/loss", step, examples / 1000 * (8 / size) ** 0.5, loss - 0.1))
    return points


def recomputed(study: Path, axis: str, by_loss: bool = False) -> "pandas.Series[float]":
    """With pandas alone: the mean over seeds, by batch size, of the last validation within what all runs had."""
    rows = []
    for path in study.glob("*/metrics.jsonl"):
        size = json.loads((path.parent / "record.json").read_text())["batch_size"]
        rows.append(pandas.read_json(path, lines=True).assign(run=path.parent.name, size=size))
    table = pandas.concat(rows)
    val = table[table["name"] == "val/loss"]
    if by_loss:
        train = table[table["name"] == "train/loss"]
        level = train.groupby("run")["value"].min().max()
        first = train[train["value"] <= level].groupby("run")["examples"].min()
        inside = val[val["examples"] <= val["run"].map(first)]
    else:
        inside = val[val[axis] <= val.groupby("run")[axis].max().min()]
    return inside.sort_values("examples").groupby(["size", "run"])["value"].last().groupby("size").mean()


def test_the_budgets_are_what_pandas_reads_off_the_journals(tmp_path: Path) -> None:
    for size in (8, 64, 512):
        for seed in range(3):
            write_run(tmp_path, size, seed, curve=curve_of(size, seed))

    found = only_group(tmp_path).budgets

    assert not isinstance(found, Unknown)
    named = {budget.held_equal: budget for budget in found}
    assert list(named) == ["equal examples", "equal steps", "equal time", "matched loss"]
    assert (named["equal examples"].amount, named["equal steps"].amount) == (2048, 4)
    assert named["equal time"].amount == pytest.approx(2.048 / 8)
    oracles = {
        "equal examples": recomputed(tmp_path, "examples"),
        "equal steps": recomputed(tmp_path, "step"),
        "equal time": recomputed(tmp_path, "train_seconds"),
        "matched loss": recomputed(tmp_path, "examples", by_loss=True),
    }
    for name, oracle in oracles.items():
        values = {entry.batch_size: entry.value.value for entry in named[name].sizes}
        assert values == pytest.approx(oracle.to_dict()), name
        assert {entry.value.n for entry in named[name].sizes} == {3}
    assert len({tuple(round(v, 6) for v in oracle) for oracle in oracles.values()}) == 4  # four different tables
    at = {entry.batch_size: entry.examples for entry in named["equal steps"].sizes}
    assert at == {8: 0, 64: 0, 512: 2048}


def test_the_loss_to_match_is_measured_in_eval_mode_where_every_run_did(tmp_path: Path) -> None:
    for size in (8, 64):
        clean = [("clean_train/loss", step, at, value / 2) for name, step, at, value in curve_of(size, 0) if step]
        write_run(tmp_path, size, curve=[*curve_of(size, 0), *clean])

    found = only_group(tmp_path).budgets

    assert not isinstance(found, Unknown)
    (matched,) = [budget for budget in found if budget.held_equal == "matched loss"]
    assert matched.unit == "of clean_train/loss"


def test_budgets_hold_completed_runs_at_the_best_learning_rate_and_time_only_quiet_ones(tmp_path: Path) -> None:
    for size in (8, 64):
        for lr, loss in ((0.1, 0.2), (0.2, 0.3)):
            best = {"val/loss": {"value": loss, "examples": 1}}
            shared = size == 64
            write_run(tmp_path, size, 0, lr, curve=curve_of(size, 0), best=best, shared_machine=shared)
        write_run(tmp_path, size, 1, 0.4, curve=curve_of(size, 9), status="diverged")

    found = only_group(tmp_path).budgets

    assert not isinstance(found, Unknown)
    assert [budget.held_equal for budget in found] == ["equal examples", "equal steps", "matched loss"]
    assert {entry.lr for budget in found for entry in budget.sizes} == {0.1}
    assert {entry.value.n for budget in found for entry in budget.sizes} == {1}


def test_a_seed_that_diverged_is_in_no_budget(tmp_path: Path) -> None:
    for size in (8, 64):
        for seed in range(3):
            lost = (size, seed) == (64, 2)
            curve = curve_of(size, seed)[: 4 if lost else None]
            write_run(tmp_path, size, seed, curve=curve, status="diverged" if lost else "completed")

    found = only_group(tmp_path).budgets

    assert not isinstance(found, Unknown)
    assert found[0].amount == 2048  # not what the lost one had
    assert [(entry.batch_size, entry.value.n) for entry in found[0].sizes] == [(8, 3), (64, 2)]


def test_groups_are_runs_that_differ_in_nothing_else(tmp_path: Path) -> None:
    for size in (8, 16, 32):
        for rule in ("none", "linear"):
            config = {"lr_scaling": rule, "reference_batch_size": size}
            write_run(tmp_path, size, config=config, run_id=f"{rule}-{size}")
    write_run(tmp_path, 8, config={"model": {"_target_": "batchlab.models.mlp.MLP", "width": 64}}, run_id="narrow")

    found = fits(read_study(tmp_path)).groups

    named = {group.name: (group.batch_sizes, str(group.rate)) for group in found}
    # reference_batch_size matters only if a rule scales by it
    assert sorted(sizes for sizes, _ in named.values()) == [(8,), (8,), (8, 16, 32), (16,), (32,)]
    assert str(found[0].rate) == "fixed"
    assert sum("lr_scaling=linear" in name for name in named) == 3
    assert {tuning for name, (_, tuning) in named.items() if "linear" in name} == {"scaled by linear"}


def test_a_requested_micro_batch_size_is_one_group_whatever_the_accumulation(tmp_path: Path) -> None:
    for size in (8, 16, 32):
        config = {"micro_batch_size": 8}
        write_run(tmp_path, size, config=config, micro_batch_sizes=[8] * (size // 8), accumulate=size // 8)

    assert [group.batch_sizes for group in fits(read_study(tmp_path)).groups] == [(8, 16, 32)]


def hostile_studies(study: Path, kind: str) -> None:
    if kind == "all failed":
        for size in (8, 16):
            write_run(study, size, status="failed", steps=0, examples=0, train_seconds=0.0)
    if kind == "all oom":
        write_run(study, 8, status="oom", steps=0, target={"metric": "val/loss", "value": 1, "reached": False})
    if kind == "all diverged":
        nan = {"val/loss": {"value": "nan", "examples": 0}}
        for size in (8, 16):
            curve = [("val/loss", 0, 0.0, math.nan)]
            write_run(study, size, status="diverged", best=nan, final={"val/loss": math.inf}, curve=curve)
    if kind == "one run":
        write_run(study, 8, curve=curve_of(8, 0), target=reached(3, 8))
    if kind == "running":
        write_run(study, 8, status="running", steps=0, train_seconds=0.0, lr_scaled=None)
        write_run(study, 16, status="completed", curve=curve_of(16, 0))
    if kind == "old records":
        for size in (8, 16):
            run = write_run(study, size)
            record = json.loads((study / run / "record.json").read_text())
            kept = ("run_id", "study", "status", "seed", "batch_size")
            (study / run / "record.json").write_text(json.dumps({k: record[k] for k in kept} | {"config": {}}))
    if kind == "strange values":
        for size in (8, 16):
            config = {"lr": "x", "stop_at_target": None, "reference_batch_size": "y"}
            write_run(study, size, config=config, target={"reached": "maybe"}, final={"speed/seconds_per_step": -1.0})


@pytest.mark.parametrize(
    "kind",
    ["empty", "all failed", "all oom", "all diverged", "one run", "running", "old records", "strange values"],
)
def test_a_study_that_says_little_says_why(tmp_path: Path, kind: str) -> None:
    hostile_studies(tmp_path, kind)

    found = fits(read_study(tmp_path))

    if kind == "empty":
        assert found.groups == ()
        assert found.main is None
        return
    (group,) = found.groups
    assert group is found.main
    assert isinstance(group.tournament, Unknown)
    assert isinstance(group.budgets, Unknown)
    for part in (group.to_target, group.time_to_target, group.pareto, group.knee, group.noise_scales):
        assert not isinstance(part, Unknown) or len(part.why) > 10


def test_fits_can_be_written_as_json(tmp_path: Path) -> None:
    for size in (8, 64):
        write_run(tmp_path, size, curve=curve_of(size, 0))

    text = json.dumps(asdict(fits(read_study(tmp_path))))

    assert '"held_equal": "equal examples", "amount": 2048.0' in text
