"""`scripts/same_science` detects a changed digit, and ignores times, speeds and memory."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def comparing(repository: Path) -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(repository / "scripts"))
        import same_results

        yield same_results
    for name in ("same_results", "small_runs"):
        sys.modules.pop(name)


def journal(path: Path, *named: tuple[str, float], at: int = 1) -> Path:
    """A journal of these measurements and one time each, in order."""
    lines = [
        {"seq": n, "name": name, "value": value, "step": at, "examples": 8 * at, "train_seconds": 0.1 * n}
        | dict.fromkeys(("low", "high", "n"))
        for n, (name, value) in enumerate(named)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


LOSSES = (("val/loss", 0.1), ("train/loss", 0.25))


def test_measurements_may_differ_in_speed_and_memory_alone(comparing: ModuleType, tmp_path: Path) -> None:
    old = journal(tmp_path / "old", LOSSES[0], ("speed/seconds_per_step", 1.0), LOSSES[1])
    new = journal(tmp_path / "new", ("memory/growth_bytes", 5.0), *LOSSES, ("speed/device_busy_share", 0.5))

    assert comparing.same_measurements("run", old, new) == 2


@pytest.mark.parametrize(
    ("named", "at"),
    [
        ((LOSSES[0], ("train/loss", 0.25000000000000006)), 1),  # the next 64-bit number
        ((LOSSES[0], ("train/losses", 0.25)), 1),
        (LOSSES[::-1], 1),
        (LOSSES[:1], 1),
        ((*LOSSES, ("val/accuracy", 1.0)), 1),
        (LOSSES, 2),
    ],
    ids=["digit", "name", "order", "fewer", "more", "step"],
)
def test_measurements_that_differ_are_found(comparing: ModuleType, tmp_path: Path, named: Any, at: int) -> None:
    old, new = journal(tmp_path / "old", *LOSSES), journal(tmp_path / "new", *named, at=at)

    with pytest.raises(comparing.DifferenceError, match="measurement"):
        comparing.same_measurements("run", old, new)


RECORD = {
    "status": "completed",
    "config": {"lr": 0.02},
    "environment": {"torch": "2.10"},
    "final": {"val/loss": 0.5, "speed/seconds_per_step": 1.0},
    "target": {"value": 0.4, "train_seconds": 1.0},
    "weights_fingerprint": "abc",
    "wall_seconds": 3.0,
}


def recorded(folder: Path, record: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "record.json").write_text(json.dumps(record))
    return folder


def test_records_may_differ_in_times_and_environment_and_have_more(comparing: ModuleType, tmp_path: Path) -> None:
    new = RECORD | {"wall_seconds": 9.0, "environment": {"torch": "2.11", "gpu": "none"}}
    new |= {"final": {"val/loss": 0.5, "memory/peak_resident_bytes": 7}, "config": {"lr": 0.02, "eval_precision": "x"}}
    new |= {"target": {"value": 0.4, "train_seconds": 2.0}}

    added = comparing.same_records("run", recorded(tmp_path / "old", RECORD), recorded(tmp_path / "new", new))

    assert added == {"config.eval_precision"}


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"final": {"val/loss": 0.5000000000000001}}, "final.val/loss"),
        ({"config": {"lr": 0.020000001}}, "config.lr"),
        ({"config": {}}, "config.lr"),
        ({"weights_fingerprint": "abd"}, "weights_fingerprint"),
        ({"target": {"value": None}}, "target.value"),
    ],
)
def test_records_that_differ_are_found(
    comparing: ModuleType, tmp_path: Path, changed: dict[str, Any], where: str
) -> None:
    old, new = recorded(tmp_path / "old", RECORD), recorded(tmp_path / "new", RECORD | changed)

    with pytest.raises(comparing.DifferenceError, match=f"record.json: {where}:"):
        comparing.same_records("run", old, new)


def test_structures_may_differ_in_numbers_and_in_what_is_null(comparing: ModuleType) -> None:
    old = {"largest": 4, "predicted": None, "probes": [{"seconds": 1}], "exact": True}
    comparing.same_structure("find", old, {"largest": 5.5, "predicted": {"size": 1}, "probes": [], "exact": False})

    for new in (old | {"exact": 1}, old | {"probes": [{}]}, {"largest": 4}):
        with pytest.raises(comparing.DifferenceError):
            comparing.same_structure("find", old, new)


def test_text_may_differ_in_seconds_alone(comparing: ModuleType, tmp_path: Path) -> None:
    texts = {
        "old": "a pass takes 0.0353 ms an example, 1,200 examples/s\nloss 0.7",
        "slower": "a pass takes 12 ms an example, 90 examples/s\nloss 0.7",
        "other": "a pass takes 12 ms an example, 90 examples/s\nloss 0.8",
    }
    for name, text in texts.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.out").write_text(text)

    comparing.same_text(tmp_path / "old", tmp_path / "slower")
    with pytest.raises(comparing.DifferenceError, match="line 2"):
        comparing.same_text(tmp_path / "old", tmp_path / "other")


@pytest.mark.slow
def test_a_checkout_is_equal_to_itself(repository: Path) -> None:
    command = [sys.executable, repository / "scripts/same_science", repository]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal science: 17 of 17" in done.stdout
