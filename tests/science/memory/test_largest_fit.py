"""The search contract (P13): with any oracle it ends soon, and returns no size that did not run twice."""

import bisect
import json
import math
import random

import pytest

from batchlab.science.memory.largest_fit import Found, Outcome, Probe, SearchStatus, largest_fit, out_of_order

# The grid, enumerated: integers whose binary form has at most six digits before its zeros.
GRID = sorted({digits << zeros for zeros in range(20) for digits in range(1, 64) if digits << zeros <= 2**20})
MOST_PROBES = 6  # beyond 2 log2 of the bound
ROOM = 10**9


def on_grid(size: float) -> int:
    """The largest size of the grid up to `size`; 0 if there is none."""
    place = bisect.bisect_right(GRID, size)
    return GRID[place - 1] if place else 0


class Oracle:
    """Returns the given outcome for each size, and records the sizes tried."""

    def __init__(self, outcome, bytes_of=lambda size: size):
        self.outcome, self.bytes_of = outcome, bytes_of
        self.tried: list[tuple[int, Outcome]] = []

    def __call__(self, size: int) -> Probe:
        outcome = self.outcome(size)
        self.tried.append((size, outcome))
        peak = int(self.bytes_of(size)) if outcome is Outcome.FITS else None
        return Probe(size=size, outcome=outcome, allowed_bytes=ROOM, peak_bytes=peak)


def up_to(limit: float):
    return lambda size: Outcome.FITS if size <= limit else Outcome.OOM


def test_a_bound_below_the_prediction_is_tried_at_once():
    """A probe is a process: bisecting up to a bound below the prediction would take seven."""
    oracle = Oracle(up_to(1000), bytes_of=lambda size: size * ROOM / 1200)
    found = largest_fit(oracle, at_most=512)

    assert found.largest == 512
    assert [size for size, _ in oracle.tried if size > 128] == [512, 512]


def check_contract(oracle: Oracle, found: Found, at_most: int) -> None:
    """What holds for every oracle."""
    sizes = [size for size, _ in oracle.tried]
    assert all(1 <= size <= at_most for size in sizes), "a bound was passed"
    assert set(sizes) <= set(GRID)
    assert [(p.size, p.outcome) for p in found.probes] == oracle.tried
    if found.largest is not None:
        own = [outcome for size, outcome in oracle.tried if size == found.largest]
        assert own[-2:] == [Outcome.FITS] * 2, "it did not run twice"
        assert Outcome.OOM not in own, "it did not fit at one time"
        below = [size for size, outcome in oracle.tried if outcome is Outcome.OOM and size <= found.largest]
        assert not below, "something smaller did not fit"
    if found.larger is not None:
        assert (found.larger.size, found.larger.outcome) in oracle.tried
        assert found.larger.size > (found.largest or 0)


def lines_of(chance: random.Random, limit: float):
    """Possible bytes of a probe: a line, a noisy line, a curve, or values unrelated to the limit."""
    fixed = chance.choice([0.0, 0.3, 0.9]) * ROOM
    slope = (ROOM - fixed) / max(limit, 0.5)
    noise = chance.choice([0.0, 0.01, 0.2])
    return chance.choice(
        [
            lambda size: fixed + slope * size * (1 + noise * chance.uniform(-1, 1)),
            lambda size: fixed + slope * size + noise * ROOM * chance.uniform(-1, 1),
            lambda size: fixed + (ROOM - fixed) * (size / max(limit, 0.5)) ** 2,
            lambda size: fixed + (ROOM - fixed) * math.sqrt(size / max(limit, 0.5)),
            lambda size: chance.uniform(0, ROOM),
            lambda size: ROOM / 2,
        ]
    )


def test_of_5000_monotone_oracles_it_finds_the_largest_size_on_the_grid_in_few_probes():
    chance = random.Random(20250302)
    for _ in range(5000):
        at_most = int(2 ** chance.uniform(0, 20))
        limit = chance.choice([0, int(2 ** chance.uniform(0, 20.5)), at_most])
        oracle = Oracle(up_to(limit), lines_of(chance, limit))

        found = largest_fit(oracle, at_most=at_most)

        check_contract(oracle, found, at_most)
        best = on_grid(min(limit, at_most))
        assert (found.largest or 0) == best
        if best < on_grid(at_most):
            assert found.larger is not None
            assert found.larger.size == GRID[bisect.bisect_right(GRID, best)]
        else:
            assert found.larger is None
        assert len(oracle.tried) <= 2 * math.log2(max(2, at_most)) + MOST_PROBES, (at_most, limit, oracle.tried)
        assert not found.unsteady
        assert not out_of_order(found.probes)


def test_of_5000_oracles_that_flip_near_their_limit_or_anywhere_it_returns_no_size_that_did_not_run_twice():
    chance = random.Random(20250303)
    given = 0
    for _ in range(5000):
        at_most = int(2 ** chance.uniform(1, 20))
        limit = int(2 ** chance.uniform(0, math.log2(at_most)))
        band = chance.choice([0.005, 0.05, 0.5])
        anywhere = chance.choice([0.0, 0.0, 0.1, 0.5])

        def outcome(size: int, limit=limit, band=band, anywhere=anywhere) -> Outcome:
            near = 0.5 - (size / limit - 1) / (2 * band)  # 1 below the band, 0 above it
            fits = chance.random() < near and chance.random() >= anywhere
            return Outcome.FITS if fits else Outcome.OOM

        oracle = Oracle(outcome, lines_of(chance, limit))

        found = largest_fit(oracle, at_most=at_most)

        check_contract(oracle, found, at_most)
        assert (found.largest or 0) <= limit * (1 + band)
        assert len(oracle.tried) <= 4 * math.log2(at_most) + 2 * MOST_PROBES, len(oracle.tried)
        given += found.largest is not None
        # Below the band every size runs: the search steps down at most one bandwidth below it.
        surely, never = (bisect.bisect_right(GRID, limit * factor) for factor in (1 - band, 1 + band))
        if anywhere == 0:
            assert bisect.bisect_right(GRID, found.largest or 0) >= surely - (never - surely) - 1
    assert given > 3000  # otherwise a search that returns nothing would pass


def test_an_oracle_with_holes_gets_a_size_below_the_first_hole_that_was_met():
    chance = random.Random(20250304)
    for _ in range(500):
        holes = [(start, start * chance.uniform(1.02, 1.5)) for start in (2 ** chance.uniform(2, 18) for _ in range(3))]

        def outcome(size: int, holes=holes) -> Outcome:
            return Outcome.OOM if size > 2**18 or any(a <= size <= b for a, b in holes) else Outcome.FITS

        oracle = Oracle(outcome)
        check_contract(oracle, largest_fit(oracle, at_most=2**20), 2**20)


def test_the_same_limit_gives_the_same_size_whatever_the_way_to_it():
    """Probes with some noise try other sizes on the way; the result is the same."""
    results, ways = set(), set()
    for seed in range(30):
        chance = random.Random(seed)
        oracle = Oracle(up_to(15_000), lambda size, c=chance: ROOM * size / 15_000 * (1 + 0.05 * c.uniform(-1, 1)))
        results.add(largest_fit(oracle, at_most=2**20).largest)
        ways.add(tuple(oracle.tried))

    assert results == {14_848}  # 29 x 512; the next is 15,360
    assert len(ways) > 5


def test_a_line_is_predicted_before_anything_near_the_limit_is_tried():
    oracle = Oracle(up_to(10_000), lambda size: ROOM / 10 + 0.9 * ROOM / 10_000 * size)

    found = largest_fit(oracle, at_most=2**20)

    assert found.predicted is not None
    assert found.predicted.size == 10_000
    assert found.predicted_from == (2, 16, 128, 1024)
    assert found.error == pytest.approx(10_000 / 9_984 - 1)
    assert [size for size, _ in oracle.tried] == [2, 16, 128, 1024, 9_984, 10_240, 9_984]


def test_if_not_even_one_example_fits_there_is_no_result():
    found = largest_fit(Oracle(up_to(0)), at_most=2**20)

    assert found.largest is None
    assert [probe.size for probe in found.probes] == [2, 1]
    assert found.larger is not None
    assert found.larger.size == 1


def test_one_example_may_be_all_that_fits():
    oracle = Oracle(up_to(1))

    assert largest_fit(oracle, at_most=2**20).largest == 1
    assert [size for size, _ in oracle.tried] == [2, 1, 1]


@pytest.mark.parametrize("at_most", [1, 2, 3, 63, 64, 65, 1000])
def test_the_bound_is_tried_where_all_fits_and_nothing_above_it(at_most):
    oracle = Oracle(up_to(10**9), lambda size: 1)

    found = largest_fit(oracle, at_most=at_most)

    assert found.largest == on_grid(at_most)
    assert found.larger is None


def test_a_size_that_ran_once_and_then_failed_is_not_returned():
    """1,008 works only the first time."""
    tries: list[int] = []

    def outcome(size: int) -> Outcome:
        tries.append(size)
        fits = size < 1000 or (size == 1008 and tries.count(1008) == 1)
        return Outcome.FITS if fits else Outcome.OOM

    found = largest_fit(Oracle(outcome, lambda size: ROOM * size / 1010), at_most=4096)

    assert found.largest == 992
    assert found.unsteady == (1008,)
    assert found.larger is not None
    assert found.larger.size == 1008


def test_if_every_size_runs_only_once_it_gives_up_soon():
    tries: list[int] = []

    def outcome(size: int) -> Outcome:
        tries.append(size)
        return Outcome.FITS if tries.count(size) == 1 else Outcome.OOM

    found = largest_fit(Oracle(outcome, lambda size: ROOM * size / 2**20), at_most=2**20)

    assert found.largest is None
    assert found.larger is not None
    assert found.larger.size == 1
    assert len(tries) < 40


def test_an_error_of_another_kind_ends_the_search_at_once_and_is_not_a_limit():
    oracle = Oracle(lambda size: Outcome.FAILED if size > 100 else Outcome.FITS)

    found = largest_fit(oracle, at_most=2**20)

    assert found.fault is not None
    assert found.fault.size == 128
    assert found.largest is None
    assert found.larger is None
    assert oracle.tried[-1] == (128, Outcome.FAILED)


@pytest.mark.parametrize(
    ("outcome", "becomes"), [(Outcome.UNCLEAR, Outcome.OOM), (Outcome.KERNEL_LIMIT, Outcome.KERNEL_LIMIT)]
)
def test_what_a_library_could_not_do_is_about_the_size_only_if_a_smaller_one_ran(outcome, becomes):
    larger = largest_fit(Oracle(lambda size: outcome if size > 100 else Outcome.FITS), at_most=1024)
    assert larger.largest == 100
    assert larger.larger is not None
    assert (larger.larger.size, larger.larger.outcome) == (102, becomes)

    always = largest_fit(Oracle(lambda size: outcome), at_most=1024)
    assert always.fault is not None
    assert (always.fault.size, always.fault.outcome) == (2, Outcome.FAILED)


def test_a_size_at_which_the_allocator_had_to_retry_does_not_fit():
    oracle = Oracle(lambda size: Outcome.RETRIES if size > 500 else Outcome.FITS)

    found = largest_fit(oracle, at_most=2**20)

    assert found.largest == 496
    assert found.larger is not None
    assert found.larger.outcome is Outcome.RETRIES


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (up_to(5), "found"),
        (up_to(0), "nothing fits"),
        (lambda size: Outcome.FITS if size < 5 else Outcome.FAILED, "failed"),
    ],
)
def test_the_status_says_how_the_search_ended_in_the_text_of_its_file(outcome, status):
    assert largest_fit(Oracle(outcome), at_most=64).status == status


def test_the_statuses_are_written_as_before():
    assert json.loads(json.dumps([*SearchStatus])) == ["running", "interrupted", "failed", "found", "nothing fits"]
