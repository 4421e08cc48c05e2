"""Kinds of public training code: they train as their own loops, and every command takes them."""

from importlib.util import find_spec

import pytest
from every_kind import KINDS
from harness import (
    Commands,
    check_finds_nothing_wrong,
    finds,
    is_in_the_table,
    sweeps_and_reports,
    trains_as_its_own_loop,
    verifies,
)

pytestmark = pytest.mark.long  # each kind is trained and examined


def skipped_without(package):
    return pytest.mark.skipif(bool(package) and find_spec(package) is None, reason=f"{package} is not installed")


each_kind = pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=skipped_without(kind.needs)) for kind in KINDS], ids=str
)


@pytest.fixture
def commands(lab, tmp_path, capfd):
    return Commands(tmp_path, lab.server, capfd)


@each_kind
def test_it_trains_as_its_own_loop_in_float64(kind):
    trains_as_its_own_loop(kind)


@each_kind
def test_check_finds_nothing_wrong(kind):
    check_finds_nothing_wrong(kind)


@pytest.mark.slow
@each_kind
def test_it_sweeps_and_reports(kind, commands):
    sweeps_and_reports(kind, commands)


NOT_DIVIDED = {  # (exit code, what verify says)
    "autoencoder": (1, "Cause: Net (the model itself) uses random numbers, which differ between passes."),
    "clip": (2, "the task's loss is of the batch as a whole (reduction=batch), so accumulating would change the"),
    "diffusion": (1, "Cause: the task's training_loss uses random numbers, which differ between passes."),
}


@each_kind
def test_it_verifies(kind, commands):
    if kind.name not in NOT_DIVIDED:
        verifies(kind, commands)
        return
    code, said = NOT_DIVIDED[kind.name]
    assert said in commands.run("verify", kind, "batch_size=10", "micro_batch_size=4", ends_with=code)


@pytest.mark.slow
@each_kind
def test_it_finds_its_largest_micro_batch(kind, commands):
    finds(kind, commands)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_page_tells_how_many_lines_are_written(kind):
    is_in_the_table(kind)
