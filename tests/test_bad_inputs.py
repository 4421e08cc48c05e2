"""A mistake is one line that says what to type instead, an exit code, and nothing on disk: a table of them."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import bad_inputs
import pytest
from bad_inputs import BAD, EMPTY, SEEN_BY_THE_PREFLIGHT, TYPOS, TYPOS_RIGHT, expected, fault, wrong_guesses
from plain_defaults import configured

from batchlab.errors import BadRequest


def test_there_are_enough_of_them() -> None:
    lines = [line for line, _, _ in expected(with_preflight=True)]

    assert len(lines) >= 120
    assert len(set(lines)) == len(lines)
    assert len(TYPOS) >= 50


# Each costs Hydra's start: the suite runs every fourth, `-m slow` and scripts/torture all.
LINES = [
    pytest.param(*line, marks=() if position % 4 == 0 or line[1] != 2 else pytest.mark.slow)
    for position, line in enumerate(expected())
]


@pytest.mark.parametrize(("line", "code", "says"), LINES, ids=lambda value: str(value)[:60])
def test_a_bad_line_gets_one_line_that_says_what_is_wrong(line: str, code: int, says: str) -> None:
    assert fault(line, code, says) is None


# Each starts a warm server.
BY_THE_PREFLIGHT = [
    pytest.param(*line, marks=pytest.mark.slow if position else ())
    for position, line in enumerate(SEEN_BY_THE_PREFLIGHT)
]


@pytest.mark.parametrize(("line", "says"), BY_THE_PREFLIGHT, ids=lambda value: str(value)[:60])
def test_so_does_what_only_the_preflight_finds(line: str, says: str) -> None:
    assert fault(line, 2, says) is None


@pytest.mark.slow
def test_a_typo_gets_the_key_that_was_meant() -> None:
    wrong = wrong_guesses()

    assert len(wrong) <= (1 - TYPOS_RIGHT) * len(TYPOS), wrong


def test_a_typo_gets_the_key_that_was_meant_at_the_border_already() -> None:
    """The same guesses without Hydra's start, and a few with it."""
    wrong = []
    for typo, meant in TYPOS.items():
        with pytest.raises(BadRequest) as caught:
            configured(**{typo: 1})
        wrong += [] if f"unknown key '{typo}': did you mean '{meant}'?" == str(caught.value) else [typo]

    assert len(wrong) <= (1 - TYPOS_RIGHT) * len(TYPOS), wrong
    assert wrong_guesses(list(TYPOS)[::10]) == []


def test_a_good_line_would_be_found_out() -> None:
    """Or the table would prove nothing."""
    assert "NothingRefusedIt" in str(fault("sweep batch_size=8", 2, "is invalid"))
    assert "ends with 2, not 4" in str(fault("sweep batch_size=0", 4, "is invalid"))
    assert "is answered by" in str(fault("sweep batch_size=0", 2, "something else"))
    assert "one line" in str(fault("config lr=1", 0, ""))


def test_an_underscore_between_digits_is_no_mistake() -> None:
    """Hydra's grammar, as Python's: 1_000 is a thousand, and the run says so."""
    from batchlab.hydra_app import compose

    assert compose(["batch_size=1_000", "device=cpu"]).batch_size == 1000


LIGHT = """
import sys
from batchlab.cli.main import main
code = main(sys.argv[1:])
assert "torch" not in sys.modules
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("line", "code"),
    [(BAD[0][0], 2), ("sweep batchsize=8", 2), ("sweep model=../../evil", 2), ("train --retry", 2), (EMPTY[0][0], 4)],
)
def test_so_it_is_in_a_process_of_its_own_that_never_saw_torch(line: str, code: int, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LIGHT, *shlex.split(line)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == code
    assert ended.stderr.startswith("batchlab: ")
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_all_of_them_can_be_run_by_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bad_inputs, "BAD", [BAD[0], ("sweep batch_size=8", "is invalid")])
    monkeypatch.setattr(bad_inputs, "WITHOUT_CUDA", [])
    monkeypatch.setattr(bad_inputs, "EMPTY", EMPTY[:1])
    monkeypatch.setattr(bad_inputs, "SEEN_BY_THE_PREFLIGHT", [])
    monkeypatch.setattr(bad_inputs, "TYPOS", {"batchsize": "batch_size"})

    count, failures = bad_inputs.run_all()

    assert count == 4
    assert len(failures) == 1
    assert "'sweep batch_size=8' ends in NothingRefusedIt" in failures[0]
