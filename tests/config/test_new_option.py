"""A new option is one row of the table and its default in `configs/`: everything else asks the table."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from plain_defaults import configured

from batchlab.sweep.identity import run_id

ROWS = """\
    toy: int = option("a toy", WEIGHTS | SPEED, at_least=1, before=1)
    toy_bytes: int = option("another toy", WEIGHTS | MEMORY, at_least=1, before=1)
    toy_speed: int = option("a toy that trains the same", SPEED, at_least=1, before=1)
"""
TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a copy of the package that has toy options says of them."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("batchlab", "configs"):
        shutil.copytree(TESTS.parent / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file, before, added in (
        (copy / "batchlab/config/options.py", "    seed: int = option(", ROWS),
        (copy / "configs/config.yaml", "seed: 0", "toy: 1\ntoy_bytes: 1\ntoy_speed: 1\n"),
    ):
        text = file.read_text(encoding="utf-8")
        assert text.count(before) == 1
        file.write_text(text.replace(before, added + before), encoding="utf-8")
    found = subprocess.run(
        [sys.executable, TESTS / "in_a_copy.py"],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": f"{copy}:{TESTS}", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    said: dict[str, Any] = json.loads(found.stdout)
    return said


def test_it_is_checked_at_the_border_and_kept_in_records(seen: dict[str, Any]) -> None:
    assert seen["composed"] == seen["kept"] == 2
    assert seen["refusal"] == "toy=0 is invalid: it must be an integer of at least 1"


def test_another_value_is_another_run_and_runs_from_before_it_keep_their_ids(seen: dict[str, Any]) -> None:
    before, toy, toy_bytes, _ = seen["ids"]

    assert before == run_id(configured(device="cpu"))
    assert len({before, toy, toy_bytes}) == 3


def test_another_value_is_no_other_run_where_it_moves_the_speed_alone(seen: dict[str, Any]) -> None:
    before, *_, toy_speed = seen["ids"]

    assert toy_speed == before


def test_what_did_not_fit_is_tried_again_only_where_it_moves_memory(seen: dict[str, Any]) -> None:
    assert seen["skipped"] == {"toy": True, "toy_bytes": False, "toy_speed": True}


def test_runs_are_grouped_by_it_and_drawn_as_curves_of_their_own(seen: dict[str, Any]) -> None:
    assert seen["groups"] == [[f"{toy}=1", f"{toy}=2"] for toy in ("toy", "toy_speed")]
    assert seen["curves"] == [[f"lr0.02-none-fp32-{toy}{value}" for value in (1, 2)] for toy in ("toy", "toy_speed")]


@pytest.mark.parametrize(("table", "toy"), [(0, "toy"), (1, "toy_speed")])
def test_the_end_table_has_a_column_of_it_and_compares_no_speed_across_its_values(
    table: int, toy: str, seen: dict[str, Any]
) -> None:
    lines = seen["tables"][table].splitlines()
    titles = next(line for line in lines if line.endswith("status")).split()
    rows = [dict(zip(titles, line.split(), strict=True)) for line in lines if line.endswith("completed")]

    assert [(row["size"], row[toy], row["speed"]) for row in rows] == [
        ("8", "1", "1.00x"),
        ("32", "1", "4.00x"),
        ("32", "2", "-"),
    ]


def test_studies_are_compared_at_equal_values_of_it(seen: dict[str, Any]) -> None:
    assert seen["compared"][0] == {"pairs": {"8": 1, "32": 2}, "settings": {}}


def test_studies_that_differ_in_what_moves_the_speed_say_so_and_compare_no_speed_across_it(
    seen: dict[str, Any],
) -> None:
    assert seen["compared"][1] == {"pairs": {"8": 1, "32": 1}, "settings": {"toy_speed": [["1", "2"], ["1"]]}}


def test_a_search_of_find_is_of_runs_with_its_value(seen: dict[str, Any]) -> None:
    plain, fast = seen["find"]

    assert fast == plain | {"toy_speed": 2}
    assert "toy_speed" not in plain  # nor in the searches of before it


def test_the_preflight_tries_each_of_its_values(seen: dict[str, Any]) -> None:
    assert seen["built"] == {"toy": 2, "toy_bytes": 2, "toy_speed": 2, "seed": 1, "eval_precision": 2}


def test_the_documentation_the_help_and_the_completion_have_it(seen: dict[str, Any]) -> None:
    makes_a_run, trains_it = seen["page"].split("## How it is trained")
    row = "| `toy` | `1` | a toy | an integer of at least 1 | weights, speed |"
    assert re.search(f"^{re.escape(row)}$", makes_a_run, re.MULTILINE)
    row = "| `toy_speed` | `1` | a toy that trains the same | an integer of at least 1 | speed |"
    assert re.search(f"^{re.escape(row)}$", trains_it, re.MULTILINE)
    assert seen["help"] == "a toy (an integer of at least 1)"
    assert seen["completed"] == ["toy=", "toy_bytes=", "toy_speed="]
