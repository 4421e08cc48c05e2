"""The comparison of precisions against fp32: paired by seed, with intervals that can be had on paper."""

import io
import math
from pathlib import Path
from typing import Any

import pytest
from invented.records import record
from rich.console import Console

from batchlab.records import RunRecord, RunStatus
from batchlab.sweep.summary.table import show

STUDENT_2 = 4.302652729911275  # the 97.5% point of t with 2 degrees of freedom, from a table


def point(
    precision: str, seed: int, *, speed: float, peak: float, saved: float, loss: float, **changes: Any
) -> RunRecord:
    final = {
        "speed/examples_per_second": speed,
        "memory/peak_resident_bytes": peak,
        "memory/saved_for_backward_bytes": saved,
        "val/loss": loss,
    }
    config = {"precision": precision, "seed": seed} | changes.pop("config", {})
    batch_size = changes.pop("batch_size", 32)
    run_id = f"{batch_size}-{precision}-{seed}-{config}"
    return record(batch_size, config, final=final, run_id=run_id, **changes)


def single(seed: int = 0, **changes: Any) -> RunRecord:
    return point("fp32", seed, **{"speed": 1000.0, "peak": 2e6, "saved": 4e6, "loss": 0.2} | changes)


def half(seed: int = 0, **changes: Any) -> RunRecord:
    return point("bf16", seed, **{"speed": 500.0, "peak": 1e6, "saved": 3e6, "loss": 0.21} | changes)


def against(records: list[RunRecord]) -> list[str]:
    """The lines of the comparison, from the table as a person sees it."""
    console = Console(file=io.StringIO(), width=200)
    show(records, Path("runs/x"), console)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith("Compared with fp32")), None)
    return [] if start is None else lines[start : lines.index("", start)]


def test_one_seed_has_ratios_and_no_interval() -> None:
    lines = against([half(), single()])

    assert lines[0].endswith("(brackets: 95% intervals, from two seeds on):")
    assert lines[2].split() == ["size", "precision", "speed", "memory", "backward", "val", "loss", "seeds"]
    assert [line.split() for line in lines[3:]] == [["32", "bf16", "0.50x", "0.50x", "0.75x", "+0.0100", "1"]]


def test_seeds_are_paired_and_their_spread_makes_the_interval() -> None:
    ratios, differences = (0.5, 0.6, 0.7), (0.01, 0.02, 0.06)
    records = [
        made
        for seed, (ratio, difference) in enumerate(zip(ratios, differences, strict=True))
        for made in (
            single(seed, speed=1000.0 * (seed + 1), loss=0.2 + seed),  # what seeds share drops out
            half(seed, speed=1000.0 * (seed + 1) * ratio, loss=0.2 + seed + difference),
        )
    ]

    (row,) = against(records)[3:]

    logs = [math.log(ratio) for ratio in ratios]
    mean, spread = sum(logs) / 3, math.sqrt(sum((x - sum(logs) / 3) ** 2 for x in logs) / 2)
    low, high = (math.exp(mean + sign * STUDENT_2 * spread / math.sqrt(3)) for sign in (-1, 1))
    assert f"{math.exp(mean):.2f}x [{low:.2f}, {high:.2f}]" in row
    shift, sd = 0.03, math.sqrt((0.02**2 + 0.01**2 + 0.03**2) / 2)
    arm = STUDENT_2 * sd / math.sqrt(3)
    assert f"{shift:+.4f} [{shift - arm:+.4f}, {shift + arm:+.4f}]" in row
    assert " 0.75x " in row  # bytes that are counted have no interval
    assert row.split()[-1] == "3"


def test_a_row_is_for_what_else_distinguishes_points() -> None:
    records = [
        made
        for batch_size in (32, 64)
        for accumulate in (1, 4)
        for made in (
            single(batch_size=batch_size, config={"accumulate": accumulate}, accumulate=accumulate),
            half(
                batch_size=batch_size,
                config={"accumulate": accumulate},
                accumulate=accumulate,
                speed=100.0 * accumulate,
            ),
        )
    ]

    rows = [line.split()[:4] for line in against(records)[3:]]

    assert rows == [
        ["32", "1", "bf16", "0.10x"],
        ["32", "4", "bf16", "0.40x"],
        ["64", "1", "bf16", "0.10x"],
        ["64", "4", "bf16", "0.40x"],
    ]


@pytest.mark.parametrize(
    "records",
    [
        [single(), single(1)],
        [half(), half(1)],
        [half(0), single(1)],  # no seed in common
        [half(batch_size=32), single(batch_size=64)],
        [half(), single(config={"lr": 0.9})],
        [half(), single(status=RunStatus.OOM)],
        [half(status=RunStatus.DIVERGED), single()],
    ],
)
def test_what_has_no_like_in_fp32_is_not_compared(records: list[RunRecord]) -> None:
    assert against(records) == []


def test_points_that_shared_the_machine_are_compared_by_loss_and_saved_bytes_only() -> None:
    lines = against([half(shared_machine=True), single()])

    assert lines[3].split() == ["32", "bf16", "-", "-", "0.75x", "+0.0100", "1"]


def test_what_only_some_seeds_have_says_how_many() -> None:
    (row,) = against([half(0), single(0), half(1, shared_machine=True), single(1)])[3:]

    assert "  0.50x (1 seed)  0.50x (1 seed)  " in row
    assert row.split()[-1] == "2"


@pytest.mark.parametrize(("other", "ratio"), [("A", "0.50x"), ("B", "-")])
def test_a_speed_is_compared_with_that_of_fp32_on_the_same_model(other: str, ratio: str) -> None:
    gpu = {"device": "cuda"}
    lines = against(
        [
            single(config=gpu, environment={"device_name": "A"}),
            half(config=gpu, environment={"device_name": other}),
        ]
    )

    assert lines[-1].split()[2:5] == [ratio, ratio, "0.75x"]


def test_a_run_of_before_eval_precision_has_its_like_among_those_validated_in_fp32() -> None:
    of_today = [half(config={"eval_precision": how}) for how in ("fp32", "same")]

    assert len(against([of_today[0], single()])) == 4
    assert against([of_today[1], single()]) == []
