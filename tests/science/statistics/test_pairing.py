"""Runs paired by seed: a full table, and a sentence for each part left out."""

import numpy as np
import pytest

from batchlab.science.statistics.pairing import Outcome, paired


def table(text: str) -> list[Outcome]:
    """A line per seed, from 0 on, its runs at batch sizes 8, 16, 32...: a value, how it ended, or `-` where not run."""
    outcomes = []
    for seed, line in enumerate(text.strip().splitlines()):
        for at, entry in enumerate(line.split()):
            number = entry.replace(".", "").isdigit() or entry in ("nan", "None")
            value = None if entry == "None" or not number else float(entry)
            if entry != "-":
                outcomes.append(Outcome(8 * 2**at, seed, "completed" if number else entry, value))
    return outcomes


def test_a_whole_study_is_its_table_in_order_whatever_order_it_came_in():
    outcomes = table("1 2 3\n4 5 6")

    whole = paired(reversed(outcomes))

    assert (whole.batch_sizes, whole.seeds, whole.left_out) == ((8, 16, 32), (0, 1), ())
    np.testing.assert_array_equal(whole.values, [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize("ended", ["failed", "killed", "timeout", "interrupted", "running", "-"])
def test_a_run_that_is_missing_by_chance_costs_its_seed_or_its_batch_size_whichever_leaves_more(ended):
    reason = "not run" if ended == "-" else ended

    few_seeds = paired(table(f"1 2 3 7\n4 {ended} 6 8\n5 6 7 9"))
    few_sizes = paired(table(f"1 2\n4 {ended}\n5 6"))

    assert (few_seeds.batch_sizes, few_seeds.seeds) == ((8, 32, 64), (0, 1, 2))
    np.testing.assert_array_equal(few_seeds.values, [[1, 3, 7], [4, 6, 8], [5, 7, 9]])
    assert few_seeds.left_out == (f"batch size 16: of 3 seeds 1 {reason}",)
    assert (few_sizes.batch_sizes, few_sizes.seeds) == ((8, 16), (0, 2))
    np.testing.assert_array_equal(few_sizes.values, [[1, 2], [5, 6]])
    assert few_sizes.left_out == (f"seed 1: {reason} at 16",)


def test_a_batch_size_that_no_seed_finished_costs_no_seed():
    left = paired(table("1 failed 3\n4 killed 6\n5 - 7"))

    assert (left.batch_sizes, left.seeds) == ((8, 32), (0, 1, 2))
    assert left.left_out == ("batch size 16: of 3 seeds 1 failed, 1 killed, 1 not run",)


@pytest.mark.parametrize(("ended", "reason"), [("oom", "oom"), ("diverged", "diverged"), ("None", "no value")])
def test_a_batch_size_that_caused_a_missing_value_is_left_out_with_its_finished_seeds(ended, reason):
    left = paired(table(f"1 2 3\n4 5 {ended}\n5 6 7\n6 7 8"))

    assert (left.batch_sizes, left.seeds) == ((8, 16), (0, 1, 2, 3))
    assert left.left_out == (f"batch size 32: of 4 seeds 1 {reason}",)


def test_a_value_that_is_not_finite_counts_as_missing():
    assert paired(table("1 2 nan")).left_out == ("batch size 32: of 1 seed 1 no value",)


def test_a_diverged_run_counts_with_the_given_value_if_any_and_never_with_its_last_one():
    outcomes = [*table("1 2\n3 -"), Outcome(16, 1, "diverged", 0.01)]

    left = paired(outcomes, diverged_as=2.3)

    assert left.left_out == ()
    np.testing.assert_array_equal(left.values, [[1, 2], [3, 2.3]])
    assert paired(outcomes).batch_sizes == (8,)


@pytest.mark.parametrize("ended", ["failed", "oom", "killed"])
def test_a_value_measured_before_a_run_ended_early_is_not_used(ended):
    left = paired([*table("1 2\n3 -\n5 6\n7 8"), Outcome(16, 1, ended, 4.0)], diverged_as=2.3)

    assert 4.0 not in left.values
    assert len(left.left_out) == 1


def test_a_half_finished_study_leaves_what_can_be_paired():
    left = paired(table("1 2 3 4\n2 3 4 5\n3 4 - -\n4 - - -"))

    assert (left.batch_sizes, left.seeds) == ((8, 16, 32, 64), (0, 1))
    assert left.left_out == ("seed 3: not run at 16, 32, 64", "seed 2: not run at 32, 64")


@pytest.mark.parametrize("text", ["", "failed oom", "failed -\nkilled failed"])
def test_a_study_without_values_is_an_empty_table(text):
    left = paired(table(text))

    assert (left.batch_sizes, left.seeds, left.values.shape) == ((), (), (0, 0))
    assert bool(left.left_out) == bool(text)


def test_two_runs_of_one_batch_size_and_seed_are_refused():
    with pytest.raises(ValueError, match="two outcomes of batch size 8 and seed 0: choose one"):
        paired([*table("1"), *table("2")])
