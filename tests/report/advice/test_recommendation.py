"""The recommendation for planted studies, and what it says is not known."""

import json
import shlex

import pytest
from invented.folders import MISSED, reached, write_run

from batchlab.report.advice.recommendation import recommend
from batchlab.report.claims.claim import Claim
from batchlab.report.figures.shown import shown
from batchlab.report.fits.fits import fits
from batchlab.report.making import make
from batchlab.report.tables.find_results import searches
from batchlab.report.tables.study import read_study
from batchlab.science.statistics.verdicts import Verdict

S_MIN, E_MIN = 50, 3200  # B_crit is 64
PER_STEP, PER_EXAMPLE = 1e-3, 4e-6  # seconds
SIZES = (8, 32, 128, 512)
ALL = (*SIZES, 2048)


def recommended(folder, claims=()):
    study = read_study(folder)
    return recommend(study, fits(study), claims)


def steps_of(size, seed):
    return round((S_MIN + E_MIN / size) * (1 + 0.01 * (seed % 3)))


def seconds_per_step(size):
    return PER_STEP + PER_EXAMPLE * size


def with_target(study, sizes=ALL, seeds=range(4), slower=1, **more):
    """Runs to the target; `slower` times as many steps as planted."""
    for size in sizes:
        for seed in seeds:
            steps, each = slower * steps_of(size, seed), seconds_per_step(size)
            given = {
                "target": reached(steps, size, steps * each),
                "final": {"speed/seconds_per_step": each, "speed/examples_per_second": size / each},
                "best": {"val/loss": {"value": 0.1 + size * 1e-5 + 1e-6 * seed, "examples": 1}},
                "overrides": [f"batch_size={size}", "lr=0.05", f"seed={seed}", "model.width=64"],
            }
            write_run(study, size, seed, **given | more)


def with_loss(study, losses, seeds=range(4), **more):
    """Runs without a target; `losses` of each batch size, which a seed moves by a thousandth."""
    for size, loss in losses.items():
        for seed in seeds:
            best = {"val/loss": {"value": loss + 0.001 * seed, "examples": 1}}
            write_run(study, size, seed, **{"best": best, "train_seconds": 10.0 / size, **more})


def test_the_fastest_the_cheapest_and_the_critical_batch_are_those_that_were_planted(tmp_path):
    with_target(tmp_path)
    times = {size: sum(steps_of(size, seed) for seed in range(4)) / 4 * seconds_per_step(size) for size in ALL}
    quickest = min(times, key=times.get)

    advice = recommended(tmp_path)

    assert advice.batch_size == quickest
    assert advice.lr == 0.05
    assert advice.fastest.value.value == pytest.approx(times[quickest])
    assert advice.cheapest.batch_size == 8
    assert advice.cheapest.value.value == pytest.approx(sum(8 * steps_of(8, seed) for seed in range(4)) / 4)
    assert advice.critical.low < 64 < advice.critical.high
    assert advice.critical.value == pytest.approx(64, rel=0.1)
    assert advice.best_loss.batch_size == 8
    assert quickest > advice.critical.high
    assert "it is above the critical batch size, so it saves time but needs more examples" in advice.text
    assert f"Use batch size {quickest} at a learning rate of 0.05: it was the fastest to val/loss 0.15" in advice.text
    assert "The cheapest is 8" in advice.text
    assert "Batch size 8 had the lowest validation loss, 0.1001" in advice.text
    assert "4 seeds and 5 batch sizes" in advice.sure


def test_where_examples_take_the_time_a_size_below_the_critical_one_is_used(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "PER_EXAMPLE", 4e-4)
    with_target(tmp_path, sizes=(2, *ALL))
    advice = recommended(tmp_path)
    assert advice.batch_size < advice.critical.low
    assert "it is below the critical batch size, so gradient noise does not limit it yet" in advice.text


@pytest.mark.parametrize(
    ("e_min", "sizes", "bound"),
    [
        (640_000, (8, 16, 32, 64), "is above {low:.3g}: within these sizes a larger batch still saves steps"),
        (320, (128, 512, 2048), "is below {high:.3g}: larger batches save few steps here"),
    ],
)
def test_a_critical_batch_beyond_the_sizes_tried_is_only_bounded(tmp_path, monkeypatch, e_min, sizes, bound):
    monkeypatch.setitem(globals(), "E_MIN", e_min)
    with_target(tmp_path, sizes=sizes)
    advice = recommended(tmp_path)
    ends = {"low": advice.critical.low, "high": advice.critical.high}
    assert f"The critical batch size {bound.format(**ends)}" in advice.text


def test_two_seeds_are_reported_as_too_few(tmp_path):
    with_target(tmp_path / "two", seeds=range(2))
    with_target(tmp_path / "three", seeds=range(3))
    assert "Two seeds are too few to choose between batch sizes" in recommended(tmp_path / "two").sure
    assert "too few" not in recommended(tmp_path / "three").sure


@pytest.mark.parametrize(("best", "at_edge"), [(0.025, True), (0.05, False), (0.1, True)])
def test_a_best_learning_rate_at_the_edge_of_the_grid_is_reported(tmp_path, best, at_edge):
    for lr in (0.025, 0.05, 0.1):
        with_target(tmp_path, seeds=range(3), slower=1 if lr == best else 2, lr=lr)
    advice = recommended(tmp_path)
    assert advice.lr == best
    assert ("Its learning rate is at the edge of those tried" in advice.sure) is at_edge


@pytest.mark.parametrize(
    ("lrs", "label"), [((0.05,), ""), ((0.025, 0.05, 0.1), "learning rate tuned over 3 values: the best of each")]
)
def test_an_untuned_learning_rate_is_reported_and_so_is_how_a_tuned_one_was_chosen(tmp_path, lrs, label):
    for lr in lrs:
        with_target(tmp_path, seeds=range(3), slower=1 if lr == 0.05 else 2, lr=lr)
    study = read_study(tmp_path)

    assert ("The learning rate was not tuned at each size" in recommended(tmp_path).sure) is (label == "")
    assert shown(study, fits(study).main, 1).label == (f"{label} batch size" if label else "")


def test_the_command_is_the_typed_one_with_a_new_seed(tmp_path):
    with_target(tmp_path / "quick")
    advice = recommended(tmp_path / "quick")
    given = f"batch_size={advice.batch_size} lr=0.05 model.width=64"
    assert advice.command == f"batchlab train {given} seed=4 study=quick"


def test_the_command_of_an_experiment_trains_one_point_and_not_its_grids(tmp_path):
    typed = ["batch_size=8", "seed=0", "experiment=quick", "study=other", "force=true", "accept_changed=true", "jobs=2"]
    with_loss(tmp_path / "quick", {8: 0.2, 32: 0.3}, overrides=typed)
    command = recommended(tmp_path / "quick").command
    assert shlex.split(command)[2:] == ["batch_size=8", "experiment=quick", "seed=4", "grids=[]", "study=quick"]


def test_typed_arguments_with_blanks_and_signs_are_unchanged(tmp_path):
    given = ["batch_size=8", "+data.name=two a=words; rm -rf /", "model.x=[1, 2]", "~a=1", "data.s='a=b'"]
    with_loss(tmp_path / "s", {8: 0.2}, overrides=given)
    assert shlex.split(recommended(tmp_path / "s").command)[2:-2] == given


def test_a_hostile_override_is_one_quoted_argument_of_the_command(tmp_path):
    with_loss(tmp_path / "s", {8: 0.2}, overrides=["data.name=x; rm -rf / `id` $(id) '\"", "seed=0"])
    command = recommended(tmp_path / "s").command
    assert shlex.split(command)[2] == "data.name=x; rm -rf / `id` $(id) '\""


def test_without_a_target_the_fastest_of_those_not_shown_to_differ_from_the_best_is_used(tmp_path):
    with_loss(tmp_path, {8: 0.2, 32: 0.2002, 128: 0.5})
    advice = recommended(tmp_path)
    assert advice.batch_size == 32
    assert advice.best_loss.batch_size == 8
    assert advice.best_loss.as_good == (32,)
    assert "its validation loss is not shown to differ from the lowest, 0.2015" in advice.text
    assert "The time to a given quality is not known" in advice.text
    assert advice.fastest is None


def test_one_seed_is_reported_as_not_enough_and_the_main_caveat_is_separate(tmp_path):
    with_loss(tmp_path, {8: 0.2, 32: 0.9}, seeds=range(1))
    advice = recommended(tmp_path)
    assert (
        "at its best it reached the lowest validation loss, 0.2, but is not shown to differ from 32 (one seed)."
        in advice.text
    )
    assert advice.but == "One seed gives no error bars, and another seed may change the choice: run seed=0,1,2,3,4."


def test_a_loss_that_was_better_before_the_end_is_reported(tmp_path):
    for name, final in (("worse", 0.9), ("kept", 0.21)):
        with_loss(tmp_path / name, {8: 0.2, 32: 0.5}, final={"val/loss": final})
    assert "It got worse later: its final validation loss was 0.9" in recommended(tmp_path / "worse").text
    assert "got worse" not in recommended(tmp_path / "kept").text


def test_without_times_the_fewest_examples_are_reported_with_the_sizes_that_tie(tmp_path):
    with_target(tmp_path, sizes=(8, 9), seeds=range(3), shared_machine=True)
    text = recommended(tmp_path).text
    assert "the fewest examples to val/loss 0.15, but is not shown to differ from 9; times cannot be compared" in text


def test_the_recommendation_is_about_the_requested_runs(tmp_path):
    with_loss(tmp_path, {8: 0.2, 32: 0.3, 128: 0.4})
    with_loss(tmp_path, {8: 0.6, 64: 0.5}, config={"precision": "bf16"})
    study = read_study(tmp_path)
    requested = [run_id for run_id, precision in study.requested["precision"].items() if precision == "bf16"]
    assert make(tmp_path).recommendation.batch_size == 8
    assert make(tmp_path, requested).recommendation.batch_size == 64
    assert make(tmp_path, requested).fits.main.name == "precision=bf16"


def test_without_a_target_a_better_loss_is_not_given_up_for_speed(tmp_path):
    with_loss(tmp_path, {8: 0.2, 32: 0.25, 128: 0.5})
    assert recommended(tmp_path).batch_size == 8


def test_a_target_that_no_run_reached_is_reported_and_the_loss_decides(tmp_path):
    with_loss(tmp_path, {8: 0.4, 32: 0.3, 128: 0.5}, target=MISSED)
    advice = recommended(tmp_path)
    assert advice.batch_size == 32
    assert "Not every seed reached the target at 8, 32 and 128." in advice.text


def test_runs_that_stop_at_the_target_give_no_best_loss(tmp_path):
    with_target(tmp_path, config={"stop_at_target": True})
    advice = recommended(tmp_path)
    assert advice.best_loss is None
    assert "The best validation loss is not known" in advice.text


def test_a_size_at_the_end_of_the_range_is_reported(tmp_path):
    with_loss(tmp_path, {8: 0.2, 32: 0.3})
    assert "it is the smallest tried, and a smaller one may be better" in recommended(tmp_path).text


def test_one_seed_is_reported_to_give_no_error_bars(tmp_path):
    with_loss(tmp_path, {8: 0.2, 32: 0.3}, seeds=[0])
    advice = recommended(tmp_path)
    assert advice.batch_size == 8
    assert "One seed gives no error bars" in advice.sure
    assert "[" not in advice.text


def test_with_one_batch_size_nothing_was_compared(tmp_path):
    with_loss(tmp_path, {8: 0.2})
    assert "only one batch size was tried" in recommended(tmp_path).text


def test_an_empty_study_recommends_nothing(tmp_path):
    advice = recommended(tmp_path)
    assert advice.text == "No batch size can be recommended: the study has no runs."
    assert (advice.command, advice.batch_size) == ("", None)


def test_a_study_whose_runs_all_failed_recommends_nothing_and_says_how_they_ended(tmp_path):
    for seed, status in enumerate(("failed", "oom", "diverged", "failed")):
        write_run(tmp_path, 8, seed, status=status, reason="<script>\x1b[31m", train_seconds=0.0, steps=0)
    advice = recommended(tmp_path)
    assert advice.batch_size is None
    assert "no run completed" in advice.text
    assert "2 failed" in advice.text
    assert advice.command == ""


def test_completed_runs_without_a_loss_recommend_nothing(tmp_path):
    for seed in range(2):
        write_run(tmp_path, 8, seed)
    assert "no completed run measured a validation loss" in recommended(tmp_path).text


def test_what_did_not_fit_and_what_could_not_be_read_is_reported(tmp_path):
    with_loss(tmp_path, {8: 0.2, 32: 0.3})
    write_run(tmp_path, 4096, 0, status="oom", steps=0, train_seconds=0.0)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "record.json").write_text("{")
    advice = recommended(tmp_path)
    assert "Out of memory: 4096." in advice.text
    assert "Of its 9 runs, 1 oom." in advice.sure
    assert "1 thing could not be read." in advice.sure


def test_claims_that_were_not_tested_are_named(tmp_path):
    with_loss(tmp_path, {8: 0.2, 32: 0.3})
    claims = [
        Claim(name, "", verdict, (), "", "", None) for name, verdict in zip(("warmup", "x"), Verdict, strict=False)
    ]
    untested = Claim("domain", "", Verdict.NOT_TESTED, (), "", "", None)
    assert "Not tested: domain." in recommended(tmp_path, [*claims, untested]).sure


def find_file(study, name="fp32-x1-0", **changes):
    """As `batchlab find` writes it, with the settings of `invented.folders.CONFIG`."""
    values = {
        "status": "found",
        "config": {
            "precision": "fp32",
            "accumulate": None,
            "optimizer": {"_target_": "torch.optim.SGD", "momentum": 0.9},
            "data": {"_target_": "batchlab.data.digits.load"},
            "model": {"_target_": "batchlab.models.mlp.MLP", "width": 128, "depth": 2},
        },
        "memory_limit_bytes": 600 * 2**20,
        "memory_limit_given": True,
        "largest": 4096,
        "larger": {"size": 4224, "outcome": "oom"},
        "knee": {"size": 256},
        "written_at": "2026-01-01T00:00:00Z",
        **changes,
    }
    (study / "find").mkdir(exist_ok=True)
    (study / "find" / f"{name}.json").write_text(json.dumps(values))


def test_the_largest_that_fits_is_the_result_of_find(tmp_path):
    with_loss(tmp_path, {8: 0.2, 32: 0.3})
    find_file(tmp_path)
    advice = recommended(tmp_path)
    assert advice.largest_fit == 4096
    assert "The largest micro-batch that fits into 600 MiB is 4,096; 4,224 did not (oom)." in advice.text


def test_a_search_that_tried_nothing_larger_shows_no_limit(tmp_path):
    with_loss(tmp_path, {8: 0.2, 32: 0.3})
    find_file(tmp_path, largest=16)
    assert "memory limits sizes above 16: use accumulate" in recommended(tmp_path).text

    find_file(tmp_path, largest=16, larger=None)
    found = recommended(tmp_path).text
    assert "A micro-batch of 16 fits into 600 MiB; nothing larger was tried." in found
    assert "memory limits" not in found


@pytest.mark.parametrize("status", ["running", "interrupted", "failed", "of a later version"])
def test_of_a_search_that_did_not_finish_the_status_is_shown_as_it_is_in_the_file(tmp_path, status):
    with_loss(tmp_path, {8: 0.2, 32: 0.3})
    find_file(tmp_path, status=status)
    ending = f"4,224 did not (oom), though the search ended early ({status})."
    assert ending in recommended(tmp_path).text
    find_file(tmp_path, status=status, largest=None)
    assert f"batchlab find found no size that fits ({status})." in recommended(tmp_path).text


def test_a_search_for_another_model_or_device_is_not_used(tmp_path):
    with_loss(tmp_path, {8: 0.2, 32: 0.3})
    find_file(tmp_path, config={"precision": "bf16", "accumulate": None, "optimizer": {}, "data": {}, "model": {}})
    advice = recommended(tmp_path)
    assert advice.largest_fit is None
    assert "The largest batch that fits was not searched for (32 ran): run batchlab find." in advice.text


def test_of_two_searches_the_last_that_found_a_size_counts(tmp_path):
    with_loss(tmp_path, {8: 0.2, 32: 0.3})
    find_file(tmp_path, "a", largest=100, written_at="2026-01-02T00:00:00Z")
    find_file(tmp_path, "b", largest=50, written_at="2026-01-01T00:00:00Z")
    find_file(tmp_path, "c", largest=None, status="interrupted", larger=None, written_at="2026-01-03T00:00:00Z")
    assert recommended(tmp_path).largest_fit == 100


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"status": 1, "largest": "<b>", "config": {}}', "\x00", "null"])
def test_a_damaged_search_is_reported_and_affects_nothing_else(tmp_path, text):
    with_loss(tmp_path, {8: 0.2, 32: 0.3})
    (tmp_path / "find").mkdir()
    (tmp_path / "find" / "x.json").write_text(text)
    assert searches(tmp_path) == ()
    advice = recommended(tmp_path)
    assert advice.batch_size == 8
    assert "x.json cannot be read" in advice.sure
