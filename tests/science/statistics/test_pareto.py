"""The Pareto front."""

import math

import numpy as np
import pytest

from batchlab.science.statistics.pareto import pareto_front


def test_a_point_is_on_the_front_unless_another_is_as_good_in_all_and_better_in_one() -> None:
    costs = [[1, 9], [2, 5], [2, 6], [3, 5], [9, 1], [9, 9]]

    assert pareto_front(costs) == [True, True, False, False, True, False]


def test_equal_points_do_not_dominate_each_other() -> None:
    assert pareto_front([[1, 2], [1, 2], [1, 3]]) == [True, True, False]


def test_a_point_with_a_missing_cost_is_not_on_the_front_and_dominates_nothing() -> None:
    assert pareto_front([[0, math.nan], [1, 1], [math.inf, 0], [math.inf, 2]]) == [False, True, True, False]


def test_the_front_agrees_with_the_definition_on_random_points() -> None:
    points = np.random.default_rng(0).integers(0, 6, size=(120, 3))

    front = pareto_front(points)

    for i, point in enumerate(points):
        beaten = any(all(a <= b for a, b in zip(p, point)) and tuple(p) != tuple(point) for p in points)  # noqa: B905
        assert front[i] is not beaten
    assert 0 < sum(front) < 60


def test_no_points_have_an_empty_front_and_a_row_is_not_a_table() -> None:
    assert pareto_front(np.empty((0, 2))) == []
    with pytest.raises(ValueError, match="table"):
        pareto_front([1, 2])
