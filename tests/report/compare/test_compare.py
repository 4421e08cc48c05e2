"""Two planted studies side by side: the differences are the planted ones, checked with SciPy."""

import json
import math

import numpy as np
import pytest
from invented.folders import CONFIG, reached, write_run
from scipy import stats

from batchlab.cli.commands.compare import main
from batchlab.errors import BadRequest
from batchlab.report.claims.claim import Claim, Evidence
from batchlab.report.compare.compare_table import lines
from batchlab.report.compare.comparison import compare
from batchlab.report.tables.groups import Tuning, Way
from batchlab.report.tables.study import read_study
from batchlab.science.statistics.uncertainty import Interval
from batchlab.science.statistics.verdicts import Effect, Verdict

SEEDS = range(5)
FIXED = Tuning(Way.FIXED)
NOISE = np.random.default_rng(7).normal(0, 0.05, 5)  # of a seed, in both studies
OWN = np.random.default_rng(8).normal(0, 0.01, 5)  # of the second study only
WIDE = {"model": CONFIG["model"] | {"width": 256}}


def plant(study, sizes=(8, 32), lrs=(0.05,), shift=0.0, speed=1000.0, config=None, **fields):
    for size in sizes:
        for lr in lrs:
            for seed in SEEDS:
                loss = 0.3 + NOISE[seed] + (shift + OWN[seed] if shift else 0.0)
                final = {"val/loss": loss, "speed/examples_per_second": speed * math.exp(NOISE[seed])}
                best = {"val/loss": {"value": loss, "examples": 1}}
                given = {"final": final, "best": best, "target": reached(100, size), **fields}
                write_run(study, size, seed, lr, config=config, **given)
    return study


def compared(first, second, claims=((), ())):
    return compare((read_study(first), read_study(second)), claims)


def row_of(comparison, quantity, batch_size):
    (row,) = (r for r in comparison.measured if (r.quantity, r.batch_size) == (quantity, batch_size))
    return row


def test_a_difference_is_paired_by_seed_with_students_interval(tmp_path):
    first, second = plant(tmp_path / "a"), plant(tmp_path / "b", shift=0.02, config=WIDE)
    row = row_of(compared(first, second), "best val loss", 8)
    differences = 0.02 + OWN
    low, high = stats.t.interval(0.95, 4, loc=differences.mean(), scale=stats.sem(differences))
    assert (row.change.value, row.change.low, row.change.high) == pytest.approx((differences.mean(), low, high))
    assert row.change.n == row.pairs == 5
    assert row.first == pytest.approx(0.3 + NOISE.mean())
    assert row.second == pytest.approx(0.3 + NOISE.mean() + differences.mean())
    assert row.change.high - row.change.low < 0.05  # unpaired, the noise between seeds would make it 0.1


def test_a_ratio_is_the_second_over_the_first(tmp_path):
    first, second = plant(tmp_path / "a"), plant(tmp_path / "b", speed=2500.0, config=WIDE)
    row = row_of(compared(first, second), "examples/s", 32)
    assert row.relative
    assert (row.change.value, row.change.low, row.change.high) == pytest.approx((2.5, 2.5, 2.5))


def test_speed_on_a_shared_machine_is_not_compared_and_the_loss_is(tmp_path):
    first, second = plant(tmp_path / "a"), plant(tmp_path / "b", config=WIDE, shared_machine=True)
    comparison = compared(first, second)
    assert {row.quantity for row in comparison.measured} == {"best val loss", "final val loss", "examples to target"}
    assert "b: 10 runs shared the machine, and are not compared in speed or memory." in comparison.notes

    one = plant(tmp_path / "c", config=WIDE)
    path = sorted(one.glob("*/record.json"))[0]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"shared_machine": True}))
    notes = compared(first, one).notes
    assert "c: 1 run shared the machine, and is not compared in speed or memory." in notes


def test_only_what_differs_is_listed_as_a_setting(tmp_path):
    comparison = compared(plant(tmp_path / "a"), plant(tmp_path / "b", config=WIDE))
    assert [(s.name, s.first, s.second) for s in comparison.settings] == [("model.width", ("128",), ("256",))]


def test_points_of_a_grid_are_paired_where_both_have_them(tmp_path):
    first = plant(tmp_path / "a", sizes=(8, 32, 128), lrs=(0.05, 0.1))
    second = plant(tmp_path / "b", sizes=(32, 128, 512), lrs=(0.1, 0.2), shift=0.02)
    comparison = compared(first, second)
    losses = [row for row in comparison.measured if row.quantity == "best val loss"]
    assert [(row.batch_size, row.pairs) for row in losses] == [(32, 5), (128, 5)]


@pytest.mark.parametrize(("option", "values"), [("eval_precision", ("fp32", "same")), ("eval_batch_size", (256, 7))])
def test_points_with_different_validation_are_not_paired(option, values, tmp_path):
    one, other = ({option: value} for value in values)
    first, second, of_one = (tmp_path / name for name in ("a", "b", "c"))
    for study in (first, second):
        plant(study, config=one)
        plant(study, config=other, shift=0.02 if study == second else 0.0)
    plant(of_one, config=other)

    assert row_of(compared(first, second), "best val loss", 8).pairs == 10
    assert row_of(compared(first, of_one), "best val loss", 8).pairs == 5
    assert row_of(compared(first, of_one), "best val loss", 8).change.value == pytest.approx(0.0)


def test_several_points_of_a_seed_count_as_one(tmp_path):
    first, second = (plant(tmp_path / name, lrs=(0.05, 0.1)) for name in ("a", "b"))
    row = row_of(compared(first, second), "best val loss", 8)
    assert (row.pairs, row.change.n) == (10, 5)


def test_the_same_points_run_twice_are_reported(tmp_path):
    comparison = compared(plant(tmp_path / "a"), plant(tmp_path / "b"))
    assert "10 pairs of 10: the same point, run twice." in comparison.notes
    assert comparison.settings == ()


def test_runs_that_were_not_completed_are_left_out_and_reported(tmp_path):
    first, second = plant(tmp_path / "a"), plant(tmp_path / "b", status="diverged")
    comparison = compared(first, second)
    assert comparison.measured == ()
    assert "b: 10 diverged." in comparison.notes


def test_examples_to_two_different_targets_are_not_compared(tmp_path):
    first = plant(tmp_path / "a", config={"target": {"metric": "val/loss", "value": 0.15}})
    second = plant(tmp_path / "b", config={"target": {"metric": "val/loss", "value": 0.2}})
    assert not any(row.quantity == "examples to target" for row in compared(first, second).measured)


def claim(value, verdict, what="loss at 8 minus that at 32", rate=FIXED, name="generalisation"):
    effect = Effect(Interval(value, value - 0.3, value + 0.4, 5), 0.01, 0.01)
    return Claim(
        name, "it is so", verdict, (Evidence(what, "equal examples", rate, effect, "nats", 5, ()),), "", "", None
    )


def test_effects_of_one_comparison_differ_as_independent_samples(tmp_path):
    first, second = claim(1.0, Verdict.SUPPORTED), claim(0.4, Verdict.INCONCLUSIVE)
    comparison = compared(plant(tmp_path / "a"), plant(tmp_path / "b"), ([first], [second]))
    (pair,) = comparison.claims
    (between,) = pair.between
    assert pair.verdicts == (Verdict.SUPPORTED, Verdict.INCONCLUSIVE)
    ends = (between.change.value, between.change.low, between.change.high)
    assert ends == pytest.approx((-0.6, -0.6 - 0.5, -0.6 + 0.5))  # arms of 0.3 and 0.4, squared and added
    assert any(line.endswith("inconclusive  different") for line in lines(comparison))


def test_other_comparisons_of_a_claim_have_no_difference(tmp_path):
    first, second = claim(1.0, Verdict.SUPPORTED), claim(0.4, Verdict.SUPPORTED, what="gap")
    (pair,) = compared(plant(tmp_path / "a"), plant(tmp_path / "b"), ([first], [second])).claims
    assert pair.between == ()


@pytest.mark.parametrize("claims", [((), ()), ([claim(1.0, Verdict.SUPPORTED)], [claim(math.nan, Verdict.MIXED)])])
def test_empty_studies_are_reported(tmp_path, claims):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    comparison = compared(tmp_path / "a", tmp_path / "b", claims)
    assert comparison.measured == comparison.settings == ()
    assert comparison.notes == ("a has no readable run.", "b has no readable run.")
    assert "No quantity was measured at the same points in both." in lines(comparison)


def test_one_seed_has_no_interval_and_says_so(tmp_path):
    for name, loss in (("a", 0.3), ("b", 0.4)):
        write_run(tmp_path / name, 8, 0, best={"val/loss": {"value": loss, "examples": 1}})
    comparison = compared(tmp_path / "a", tmp_path / "b")
    assert row_of(comparison, "best val loss", 8).change == Interval(pytest.approx(0.1), None, None, 1)
    assert any("one seed: no error bars" in line for line in lines(comparison))


def test_hostile_names_and_damaged_records_come_out_as_one_line_each(tmp_path):
    hostile = "\x1b[31m\u202e<script>\nalert(1)"
    first = plant(tmp_path / "a", config={"model": {"_target_": "a.B", "name": hostile}})
    second = plant(tmp_path / "b", config={"model": {"_target_": "a.B", "name": hostile * 40}})
    (second / "torn").mkdir()
    (second / "torn" / "record.json").write_text('{"run_id": "\x1b"')
    comparison = compared(first, second, ([claim(1, Verdict.MIXED, hostile)], [claim(2, Verdict.MIXED, hostile)]))
    shown = lines(comparison)
    assert all(line.isprintable() for line in shown)
    assert any(line.startswith("b: ") and "cannot be read" in line for line in shown)


def test_the_command_compares_two_folders(tmp_path, capsys):
    plant(tmp_path / "a")
    plant(tmp_path / "b", shift=0.02, config=WIDE)
    assert main(["a", str(tmp_path / "b"), "--runs-dir", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert output.startswith("A is a, B is b.")
    assert "model.width" in output
    assert "epoch-time" in output


def test_a_study_is_not_compared_with_itself(tmp_path):
    plant(tmp_path / "a")
    with pytest.raises(BadRequest, match="are the same study"):
        main(["a", str(tmp_path / "a"), "--runs-dir", str(tmp_path)])
