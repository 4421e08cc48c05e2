"""The table at the end of a sweep, as a person sees it."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from invented.records import CNN, MLP, record
from rich.console import Console

from batchlab.config.options import PEAK_LR_OPTIONS
from batchlab.records import RunRecord, RunStatus
from batchlab.sweep.summary import table_notes
from batchlab.sweep.summary.table import show

STUDY = Path("runs/digits-mlp")


def shown(records: Sequence[RunRecord], console: Console | None = None) -> str:
    """What a file holds that the table was written to, or what `console` got."""
    console = console or Console(file=io.StringIO(), width=40)
    show(records, STUDY, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_an_option_that_is_added_to_what_decides_the_learning_rate_is_held_equal_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(table_notes, "PEAK_LR_OPTIONS", ("toy", *PEAK_LR_OPTIONS))
    rest = "learning rate 0.05, not scaled"

    assert f"{rest}, toy=2." in shown([record(8, {"toy": 2}), record(32, {"toy": 2})])
    assert rest not in shown([record(8, {"toy": 2}), record(32, {"toy": 3})])


def terminal(width: int) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, color_system=None, width=width)


def header(text: str) -> str:
    """The titles' last line."""
    return next(line for line in text.splitlines() if line.endswith("status"))


def cells(text: str, title: str) -> list[str]:
    """The column whose last title line is `title`, from a table in which no cell is empty."""
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.endswith("status"))
    names = lines[at].split()
    rows = [line.split() for line in lines[at + 1 : lines.index("", at)]]
    return [row[names.index(title)] for row in rows]


def test_the_table_of_the_headline_command() -> None:
    oom = record(1024, status=RunStatus.OOM, final={}, steps=0, remainder=0, train_seconds=0.0, reason="20 GiB\x1b[1m")

    assert shown([record(256), oom, record(8), record(32)]) == (
        "batch  peak         examples  relative  peak     val       val    train\n"
        " size    lr  steps        /s     speed   MiB    loss  accuracy  seconds  status\n"
        "    8  0.05  3,592     8,000     1.00x   8.0  0.1530    0.9545     3.59  completed\n"
        "   32  0.05    898    32,000     4.00x  32.0  0.1530    0.9545     0.90  completed\n"
        "  256  0.05    112   256,000    32.00x   256  0.1530    0.9545     0.11  completed\n"
        " 1024  0.05      0         -         -     -       -         -     0.00  oom\n"
        "\n"
        "The same for all points: a budget of 28,740 examples; learning rate 0.05, not scaled.\n"
        "Not trained on, since the budget is not a multiple of the batch size: 4 examples at batch size 8, 32; "
        "68 examples at batch size 256.\n"
        "Peak MiB: how much the point's process grew during training.\n"
        "oom: batch_size=1024: 20 GiB[1m\n"
        "Next: batchlab dashboard runs/digits-mlp\n"
    )


def test_what_runs_could_not_do_as_requested_is_a_line_for_each_and_not_for_each_run() -> None:
    both, own = "evaluated at most 5 examples at a time", "instrument sharpness does not fit"
    records = [record(8, notes=(both,)), record(32, notes=(both, own)), record(64, notes=(own,), status=RunStatus.OOM)]

    lines = [line for line in shown(records).splitlines() if line.startswith("note: ")]

    assert lines == [f"note: batch_size=8; batch_size=32: {both}", f"note: batch_size=32: {own}"]


def test_a_terminal_of_80_columns_holds_the_headline_table() -> None:
    lines = shown([record(8), record(32), record(256)], terminal(80)).splitlines()

    assert max(map(len, lines[:5])) <= 80
    assert lines[4].endswith("completed")
    assert lines[5] == ""


def test_a_terminal_that_is_a_little_too_narrow_has_columns_closer_together() -> None:
    records = [record(8), record(32)]
    wide = len(shown(records).splitlines()[2])

    assert shown(records, terminal(wide)).splitlines()[2] == shown(records).splitlines()[2]
    closer = shown(records, terminal(wide - 1)).splitlines()[2]
    assert closer.split() == shown(records).splitlines()[2].split()
    assert len(closer) == wide - len(closer.split()) + 1


def test_options_that_vary_have_columns_and_order_the_rows() -> None:
    grid = [
        record(
            64, {"precision": precision, "seed": seed}, accumulate=accumulate, run_id=f"{accumulate}{precision}{seed}"
        )
        for seed in (10, 9)
        for precision in ("fp32", "bf16")
        for accumulate in (4, 1)
    ]

    text = shown(grid)

    assert header(text).split()[:4] == ["size", "accumulate", "precision", "seed"]
    assert "lr_scaling" not in text
    order = list(zip(cells(text, "accumulate"), cells(text, "precision"), cells(text, "seed"), strict=True))
    assert order == [(a, p, s) for a in ("1", "4") for p in ("bf16", "fp32") for s in ("9", "10")]


def test_a_narrow_terminal_shows_the_options_below_the_rows() -> None:
    grid = [
        record(64, {"precision": p, "schedule": s}, run_id=p + s)
        for p in ("fp32", "bf16")
        for s in ("cosine", "linear")
    ]

    lines = shown(grid, terminal(80)).splitlines()

    assert max(map(len, lines[:10])) <= 80
    assert lines[3] == "    precision=bf16 schedule=cosine"
    assert lines[9] == "    precision=fp32 schedule=linear"


def test_a_groups_own_key_is_shown_only_where_it_distinguishes_points() -> None:
    text = shown([record(8), record(8, {"model": CNN}, run_id="cnn")])
    assert cells(text, "model") == ["cnn", "mlp"]
    assert "depth" not in text  # only the mlp has it, and in all mlps it is the same
    assert "width" not in text  # another in the cnn, where it means another thing

    text = shown([record(8), record(8, {"model": MLP | {"width": 64}}, run_id="narrow")])
    assert "model." in text
    assert cells(text, "width") == ["64", "128"]


def test_what_measured_the_points_is_shown_only_where_nothing_else_distinguishes_them() -> None:
    noise = {
        "instruments": {"noise_scale": {"_target_": "batchlab.instruments.gradient.noise_scale.GradientNoiseScale"}}
    }
    described = [record(8, noise | {"lr_scaling": "sqrt"}), record(8, run_id="plain")]
    alike = [record(8, noise), record(8, run_id="plain")]

    assert "noise_scale" not in shown(described)
    assert "lr_scaling" in header(shown(described))
    assert "noise_scale" in shown(alike)


def test_models_of_one_name_are_distinguished() -> None:
    text = shown([record(8, {"model": {"_target_": f"{module}.Net"}}, run_id=module) for module in "ab"])

    assert cells(text, "model") == ["a.Net", "b.Net"]


def test_speed_is_compared_with_the_smallest_batch_size_of_its_kind() -> None:
    slow = [record(b, {"model": CNN}, run_id=f"c{b}", final={"speed/examples_per_second": b / 2}) for b in (32, 64)]
    lone = record(64, {"precision": "bf16"}, run_id="lone")

    text = shown([record(8), record(32), *slow, lone])

    found = dict(zip(zip(cells(text, "size"), cells(text, "model"), strict=True), cells(text, "speed"), strict=True))
    assert found["8", "mlp"] == "1.00x"
    assert found["32", "mlp"] == "4.00x"
    assert (found["32", "cnn"], found["64", "cnn"]) == ("1.00x", "2.00x")
    assert found["64", "mlp"] == "-"  # the only bf16 point


def test_seeds_share_the_smallest_batch_sizes_mean_speed() -> None:
    first, second = (
        record(8, {"seed": s}, final={"speed/examples_per_second": speed}) for s, speed in ((0, 900.0), (1, 1100.0))
    )

    assert cells(shown([first, second, record(32)]), "speed") == ["0.90x", "1.10x", "32.00x"]


def test_one_batch_size_has_nothing_to_be_relative_to() -> None:
    assert "relative" not in shown([record(64), record(64, {"seed": 1})])


def test_the_base_learning_rate_is_shown_where_the_peak_does_not_distinguish_points() -> None:
    scaled = [record(32, {"lr": lr, "lr_scaling": "linear"}, run_id=str(lr), lr_scaled=2 * lr) for lr in (0.1, 0.05)]
    assert header(shown(scaled)).split()[:3] == ["size", "lr", "lr"]

    plain = [record(32, {"lr": lr}, run_id=str(lr)) for lr in (0.1, 0.05)]
    assert header(shown(plain)).split().count("lr") == 1
    assert cells(shown(plain), "lr") == ["0.05", "0.1"]


def test_a_target_has_columns() -> None:
    requested = {"metric": "val/loss", "value": 0.15, "reached": False, "examples": None, "train_seconds": None}
    reached = requested | {"reached": True, "examples": 1437, "train_seconds": 1.25}

    text = shown([record(8, target=reached), record(32, target=requested)])

    assert header(text).split()[-4:] == ["examples", "seconds", "seconds", "status"]
    assert "1,437     1.25" in text
    assert "target" not in shown([record(8)])


def test_cuda_memory_is_what_it_allocated() -> None:
    final = {"memory/peak_allocated_bytes": 3 * 2.0**20, "memory/peak_resident_bytes": 2.0**30}

    text = shown([record(8, final=final)])

    assert cells(text, "MiB") == ["3.0"]
    assert "Peak MiB: the most that CUDA had allocated, data included." in text


def test_cuda_memory_is_what_training_took_where_that_was_counted_separately() -> None:
    old = {"memory/peak_allocated_bytes": 700 * 2.0**20}
    new = old | {"memory/peak_growth_bytes": 3 * 2.0**20}

    assert cells(shown([record(8, final=new)]), "MiB") == ["3.0"]
    assert "Peak MiB: GPU memory that training took in addition to the data" in shown([record(8, final=new)])
    both = shown([record(8, final=new), record(32, final=old)])
    assert "the most that CUDA had allocated, data included (older runs)" in both


@pytest.mark.parametrize(
    ("records", "note"),
    [
        ([record(8), record(32, remainder=0)], "Not the same for all points: the budget, 28,736 to 28,740 examples."),
        (
            [record(b, {"lr_scaling": "sqrt"}, lr_scaled=b / 100) for b in (8, 32)],
            "The same for all points: a budget of 28,740 examples; learning rate 0.05, scaled by sqrt from batch size "
            "32.",
        ),
        (
            [record(b, {"lr_scaling": "noise", "noise_scale": 118.3}) for b in (8, 32)],
            "The same for all points: a budget of 28,740 examples; learning rate 0.05, scaled by noise from batch size "
            "32, with a noise scale of 118.3.",
        ),
        (
            [record(b, {"lr_scaling": "noise", "noise_scale": 4.0 * b}) for b in (8, 32)],
            "The same for all points: a budget of 28,740 examples.",
        ),
        ([record(8), record(32, {"lr": 0.1})], "The same for all points: a budget of 28,740 examples."),
        (
            [record(8, steps_skipped=3, steps=112)],
            "Updates that the fp16 scaler skipped: 3 of 112 at batch_size=8.",
        ),
        (
            [record(8), record(32, shared_machine=True)],
            "Do not compare speed and memory of 1 point: other points used the machine at the same time.",
        ),
        (
            [record(8, status=RunStatus.FAILED, reason="RuntimeError: x\ny")],
            "failed: batch_size=8: RuntimeError: x y (log: runs/digits-mlp/b8-0/worker.log)",
        ),
        (
            [record(b, status=RunStatus.DIVERGED, reason="at step 3") for b in (1, 2, 3, 4, 5, 6)],
            "diverged: batch_size=1; batch_size=2; batch_size=3; batch_size=4 and 2 more: at step 3",
        ),
    ],
)
def test_notes(records: list[RunRecord], note: str) -> None:
    assert note in shown(records).splitlines()


def test_runs_that_stop_at_a_target_are_not_reported_as_equal() -> None:
    stopping = [record(b, {"stop_at_target": True}) for b in (8, 32)]

    assert "The same for all points" not in shown(stopping)
    assert "Not trained on" not in shown(stopping)


def test_no_points_are_reported() -> None:
    assert shown([]) == "No points in runs/digits-mlp.\n"


def test_a_path_with_a_space_can_be_pasted(tmp_path: Path) -> None:
    console = Console(file=io.StringIO())
    show([record(8)], tmp_path / "my study", console)

    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().endswith(f"Next: batchlab dashboard '{tmp_path}/my study'\n")


def test_the_speed_of_points_that_shared_the_machine_is_compared_with_none() -> None:
    speed = {"speed/examples_per_second": 100.0, "val/loss": 1.0}
    alone = [record(8, final=speed), record(32, final=speed | {"speed/examples_per_second": 300.0})]
    shared = [record(size, final=speed, shared_machine=True, run_id=f"shared-{size}") for size in (8, 64)]

    assert cells(shown([*alone, *shared]), "speed") == ["1.00x", "-", "3.00x", "-"]


def on(model: str, size: int, speed: float, device: str = "cuda") -> RunRecord:
    final = {"speed/examples_per_second": speed, "val/loss": 0.1, "memory/peak_allocated_bytes": 1e6}
    return record(size, {"device": device}, final=final, environment={"device_name": model, "cpu": "a processor"})


def test_a_speed_is_relative_to_the_smallest_batch_size_on_the_same_model() -> None:
    table = shown([on("A", 8, 100.0), on("A", 32, 300.0), on("B", 64, 9000.0), on("B", 128, 18000.0)])

    assert cells(table, "speed") == ["1.00x", "3.00x", "1.00x", "2.00x"]
    assert "Measured on A (2 points), B (2 points): speeds and memory peaks of different models" in table


@pytest.mark.parametrize("status", [RunStatus.FAILED, RunStatus.OOM, RunStatus.KILLED])
def test_what_was_cut_off_is_no_speed_to_be_relative_to(status: RunStatus) -> None:
    cut_off = replace(on("A", 8, 100.0), status=status)

    assert cells(shown([cut_off, on("A", 32, 300.0), on("A", 64, 600.0)]), "speed") == ["-", "1.00x", "2.00x"]


def test_the_device_is_named_below_and_which_of_several_it_was_is_no_setting() -> None:
    table = shown([on("NVIDIA H200", 8, 100.0, "cuda:0"), on("NVIDIA H200", 32, 300.0, "cuda:3")])

    assert cells(table, "speed") == ["1.00x", "3.00x"]
    assert "device" not in header(table)
    assert "\nMeasured on NVIDIA H200.\n" in table
