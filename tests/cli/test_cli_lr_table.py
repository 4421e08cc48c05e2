"""`batchlab lr-table` shows what a run would get, without starting one, and for most optimizers without PyTorch."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from invented.records import batchlab, environment
from test_cli_commands import LIGHT

from batchlab.cli.commands import lr_table
from batchlab.cli.main import main
from batchlab.cli.option_help import described_options, groups
from batchlab.config.commands import COMMANDS
from batchlab.errors import BadRequest
from batchlab.hydra_app import compose
from batchlab.training.updates.optimizer import build_optimizer

pytestmark = pytest.mark.long  # runs for each rule

# Worked out by hand: k = 1/4, 1, 8 and Bn = 120, so noise gives (1 + 3.75) / (1 + 15), 1 and 4.75 / (1 + 0.46875),
# and surge that over sqrt(k); 0.9^(1/4) = 0.974004, 0.999^(1/4) = 0.99975, 0.9^8 = 0.430467, 0.999^8 = 0.992028.
GOLDEN = """\
lr=0.1 at reference_batch_size=32, for torch.optim.AdamW; noise_scale=120.

                batch     peak
rule             size       lr     beta1     beta2        eps
none                8      0.1       0.9     0.999      1e-08
none               32      0.1       0.9     0.999      1e-08
none              256      0.1       0.9     0.999      1e-08
linear              8    0.025       0.9     0.999      1e-08
linear             32      0.1       0.9     0.999      1e-08
linear            256      0.8       0.9     0.999      1e-08
sqrt                8     0.05       0.9     0.999      1e-08
sqrt               32      0.1       0.9     0.999      1e-08
sqrt              256   0.2828       0.9     0.999      1e-08
adam_sqrt           8     0.05  0.974004   0.99975      2e-08
adam_sqrt          32      0.1       0.9     0.999      1e-08
adam_sqrt         256   0.2828  0.430467  0.992028  3.536e-09
adam_half_life      8      0.1       0.9   0.99975      1e-08
adam_half_life     32      0.1       0.9     0.999      1e-08
adam_half_life    256      0.1       0.9  0.992028      1e-08
noise               8  0.02969       0.9     0.999      1e-08
noise              32      0.1       0.9     0.999      1e-08
noise             256   0.3234       0.9     0.999      1e-08
surge               8  0.05938       0.9     0.999      1e-08
surge              32      0.1       0.9     0.999      1e-08
surge             256   0.1143       0.9     0.999      1e-08
"""


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["lr-table", "device=cpu", *arguments]) == 0
    return capsys.readouterr().out


def test_the_table_is_the_one_worked_out_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    shown = said(capsys, "batch_size=8,32,256", "lr=0.1", "optimizer=adamw", "noise_scale=120")

    assert shown == GOLDEN


def test_a_rule_that_does_not_fit_says_why_below_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    shown = said(capsys, "batch_size=64")

    lines = shown.splitlines()
    assert [line.split() for line in lines[4 : lines.index("", 4)]] == [
        ["none", "64", "0.02"],
        ["linear", "64", "0.04"],
        ["sqrt", "64", "0.02828"],
        ["adam_sqrt", "-", "-"],
        ["adam_half_life", "-", "-"],
        ["noise", "-", "-"],
        ["surge", "-", "-"],
    ]
    assert "beta1" not in shown
    reason = "changes betas, and this optimizer has none: use optimizer=adamw, or lr_scaling=linear."
    assert f"- lr_scaling=adam_sqrt {reason}" in lines
    assert any(line.startswith("- lr_scaling=noise needs noise_scale=...: a number of examples") for line in lines)


@pytest.mark.parametrize("batch_size", [8, 256])
def test_a_run_gets_what_the_table_shows(batch_size: int, capsys: pytest.CaptureFixture[str]) -> None:
    grid = ["lr=0.1", "optimizer=adamw", "noise_scale=120", f"batch_size={batch_size}"]
    shown = said(capsys, *grid)

    for rule in ("sqrt", "adam_sqrt", "noise", "surge"):
        own = grid if rule in ("noise", "surge") else grid[:2] + grid[3:]
        optimizer = build_optimizer(compose([*own, f"lr_scaling={rule}", "device=cpu"]), torch.nn.Linear(2, 2))
        group = optimizer.param_groups[0]
        (row,) = [line.split() for line in shown.splitlines() if line.split()[:2] == [rule, str(batch_size)]]
        assert [float(cell) for cell in row[2:]] == pytest.approx(
            [group["lr"], *group["betas"], group["eps"]], rel=5e-4
        )


def test_the_betas_and_eps_of_an_optimizer_are_read_from_its_signature(capsys: pytest.CaptureFixture[str]) -> None:
    shown = said(capsys, "batch_size=64", "optimizer._target_=torch.optim.RAdam", "noise_scale=32")

    assert [line.split() for line in shown.splitlines() if line.startswith("adam_sqrt")] == [
        ["adam_sqrt", "64", "0.02828", "0.81", "0.998001", "7.071e-09"]
    ]


@pytest.mark.parametrize("target", lr_table.WITHOUT_BETAS_AND_EPS)
def test_optimizers_that_are_not_read_have_no_betas_and_eps(target: str) -> None:
    parameters = inspect.signature(getattr(torch.optim, target.rpartition(".")[2])).parameters

    assert not {"betas", "eps"} & set(parameters)


def test_an_experiment_and_a_range_are_composed_as_in_a_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    shown = said(capsys, "batch_size=range(16,49,16)", "experiment=smoke")

    assert [line.split()[1] for line in shown.splitlines() if line.startswith("linear")] == ["16", "32", "48"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("batch_size=8,32 lr=0.1,0.2", "lr-table shows one setting at several batch sizes: give lr one value"),
        (
            "batch_size=8 noise_scale=5,6 optimizer=adamw",
            "lr-table shows one setting at several batch sizes: give noise_",
        ),
        ("batch_size=8 lr_scaling=sqrt", "lr_scaling=sqrt is invalid: the table shows every rule; leave it out"),
        ("batch_size=8 --cfg job", "unknown flag --cfg: write options as in `batchlab lr-table batch_size=8"),
        ("batch_size=0", "batch_size=0 is invalid: it must be an integer of at least 1"),
        ("batch_sise=8", "unknown key 'batch_sise': did you mean 'batch_size'?"),
        ("batch_size=8 optimizer=adm", "unknown optimizer 'adm': did you mean 'adamw'?"),
        ("batch_size=8 noise_scale=-3", "noise_scale=-3 is invalid: it must be a number above 0, in examples, or null"),
        ("batch_size=8 noise_scale=runs/a/b", "noise_scale=runs/a/b is invalid: no run is there; give a number"),
        ("batch_size=8 optimizer=adamw optimizer.betas=3", "optimizer.betas=3 is invalid: write a list of numbers"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(["lr-table", "device=cpu", *arguments.split()]) == 2

    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith(f"batchlab: {message}")
    assert written.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_it_answers_without_pytorch_and_plainly_where_there_is_no_terminal(tmp_path: Path) -> None:
    words = ["lr-table", "batch_size=8,32,256", "lr=0.1", "optimizer=adamw", "noise_scale=120", "device=cpu"]

    ended = subprocess.run(
        [sys.executable, "-c", LIGHT, *words],
        cwd=tmp_path,
        env=environment(COLUMNS="60"),
        capture_output=True,
        text=True,
        check=True,
    )

    assert ended.stdout.startswith(GOLDEN)
    heavy = ended.stdout.splitlines()[-1].split()[1:]
    assert not {"torch", "pandas", "sklearn"} & set(heavy)
    assert ended.stderr == ""


def test_the_titles_stand_out_in_a_terminal(tmp_path: Path) -> None:
    coloured = batchlab("lr-table", "batch_size=8", "device=cpu", folder=tmp_path, FORCE_COLOR="1")

    assert "\x1b[1mrule" in coloured.stdout
    assert "\x1b[2mnoise" in coloured.stdout


def test_examples_of_the_help_name_options_and_choices_that_exist() -> None:
    examples = [
        line.split("    ")[0].split()[2:]
        for line in COMMANDS["lr-table"].examples.splitlines()
        if "batchlab lr" in line
    ]
    assert len(examples) >= 5
    options = groups()
    for argument in (argument.strip("'") for example in examples for argument in example):
        key, _, value = argument.partition("=")
        assert key.partition(".")[0] in described_options(), argument
        assert key not in options or value in options[key], argument


# (1 + cos(pi * p)) / 2 with 0.1 as its floor: at p = 1/2, 0.1 + 0.9 / 2; the warm-up takes the first fifth.
SCHEDULED = """\
schedule=cosine: multiples of the peak learning rate, by the fraction of the budget.
      0      0.1  0.2     0.3     0.4     0.5   0.6     0.7     0.8     0.9    1
warm-up  warm-up    1  0.9657  0.8682  0.7222  0.55  0.3778  0.2318  0.1343  0.1
"""


def test_it_shows_the_schedule_over_the_budget(capsys: pytest.CaptureFixture[str]) -> None:
    shown = said(capsys, "batch_size=8,32", "schedule=cosine", "schedule_floor=0.1", "warmup=0.2")

    assert shown.endswith(f"\n\n{SCHEDULED}")


def test_without_a_budget_in_examples_a_warm_up_in_examples_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("batch_size=8", "schedule=wsd", "warmup=200")

    assert "budget, without the warm-up of 200 examples.\n" in said(capsys, *options)
    known = said(capsys, *options, "examples=1000").splitlines()
    assert known[-1].split() == [*2 * ["warm-up"], *7 * ["1"], "0.5", "0"]


def test_a_schedule_that_cannot_be_honoured_is_refused_before_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadRequest, match="schedule=one_cycle warms up by itself: use warmup=0"):
        lr_table.main(["device=cpu", "batch_size=8", "schedule=one_cycle", "warmup=0.1"])
    with pytest.raises(BadRequest, match="one setting at several batch sizes: give schedule one value"):
        lr_table.main(["device=cpu", "batch_size=8", "schedule=wsd,linear"])

    assert capsys.readouterr().out == ""
