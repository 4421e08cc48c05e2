"""Programs that compute on a GPU in addition to a point's own process."""

import os
import subprocess
import sys

import pytest

from batchlab.host.neighbours import HIDDEN, SILENT, Neighbours, own_family

OWN, OTHER = 100, 777
Lists = list[set[int] | None]


def neighbours(*answers: set[int] | None) -> Neighbours:
    """What the driver answers, question by question."""
    left = iter(answers)

    def listed(uuid: str) -> frozenset[int] | None:
        answer = next(left)
        return None if answer is None else frozenset(answer)

    return Neighbours("GPU-a", listed=listed, family={1, 99, OWN})


@pytest.mark.parametrize(
    ("before", "after", "met"),
    [
        (set(), {OWN}, False),
        ({OTHER}, {OWN}, True),  # it left meanwhile
        (set(), {OWN, OTHER}, True),
        ({99}, {99, OWN}, False),  # a notebook that started the sweep
        (set(), {51234}, False),  # a container: this process by the number it has outside
        (set(), {51234, 51300}, True),
    ],
)
def test_who_is_met_is_another_program(before: set[int], after: set[int], met: bool) -> None:
    found = neighbours(before, after)

    assert found.met() is met
    assert found.unknown == ""


@pytest.mark.parametrize(("answers", "why"), [([None], SILENT), ([set(), None], SILENT), ([set(), set()], HIDDEN)])
def test_what_the_driver_does_not_say_is_not_known(answers: Lists, why: str) -> None:
    found = neighbours(*answers)

    assert found.met() is False
    assert found.unknown == why


def test_the_family_is_this_process_with_what_started_it_and_what_it_started() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        family = own_family()
        child.communicate()

    assert {os.getpid(), os.getppid(), child.pid} <= family
