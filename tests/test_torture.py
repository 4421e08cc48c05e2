"""A part of scripts/torture, and its sweeps: two at once, and one with many faults."""

import random
import re
import resource
import signal
import subprocess
import sys

import pytest
from torture import kernel, kills, pairs
from torture.comparison import came_to
from torture.sweeps import SETTINGS, SLOW, STARTED, sweep

from batchlab.sweep.identity import run_folder

GRID = ("batch_size=16,32", "accumulate=null,2")
# For each kind that runs here in part: the minimum number of injected faults.
SHARE = {
    "system calls": 45,
    "power losses": 15,
    "flipped bits": 50,
    "truncations": 500,
    "damaged files": 10,
    "writes outside": 20,
    "planted bugs": 1,
}


@pytest.mark.long
def test_a_share_of_the_torture_is_survived(repository, tmp_path):
    kinds = [word for kind in SHARE for word in ("--only", kind)]
    command = [sys.executable, str(repository / "scripts" / "torture"), "--scale", "0.02", "--jobs", "2", *kinds]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    table = dict(re.findall(r"^([a-z ]+?) +[\d,]+  [\d,]+ of ([\d,]+) ", done.stdout, re.MULTILINE))
    counts = {kind: int(count.replace(",", "")) for kind, count in table.items()}
    assert {kind: count for kind, count in counts.items() if count < SHARE[kind]} == {}
    assert counts.keys() == SHARE.keys()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def expected(lab, tmp_path):
    """The results of each point of the grid without faults."""
    (tmp_path / "slow.py").write_text(SLOW)
    points = [
        lab.point(*SETTINGS, f"batch_size={size}", f"accumulate={pieces}")
        for size in (16, 32)
        for pieces in ("null", 2)
    ]
    outcome = lab.run(*points)
    assert outcome.exit_code == 0
    return {run_folder(point.config).name: came_to(run_folder(point.config)) for point in points}


@pytest.mark.slow  # the pairs of scripts/torture repeat it
def test_two_sweeps_over_one_study_finish_it_once(expected, tmp_path):
    assert list(pairs.together(tmp_path / "pair", expected, *GRID)) == [None, None, None]


@pytest.mark.slow  # a kind of the torture
def test_a_killed_sweep_leaves_no_process_behind(tmp_path):
    assert kills.leaves_nobody(tmp_path / "killed") is None


@pytest.mark.slow  # a kind of scripts/torture each, sequentially
def test_a_sweep_on_a_hard_day_comes_to_what_it_would_have(expected, tmp_path):
    folder, done = tmp_path / "day", dict[str, bytes]()
    folder.mkdir()

    # There is space for a record, but not for a checkpoint.
    with sweep(folder, *GRID, before=kernel.limited(resource.RLIMIT_FSIZE, 8000)) as running:
        assert kernel.refused(running.end(), running.output, "File too large", "checkpoints", "0 of 4 points") is None
    assert list(kills.killed_again_and_again(folder, 1, done, random.Random(0), *GRID)) == [None]
    with sweep(folder, *GRID) as running:
        assert running.hear(STARTED)
        running.kill(signal.SIGTERM)
        assert running.end() == 143
        assert "continue with: batchlab sweep" in running.output
        assert running.orphans() == []
    assert kills.comes_to(folder, expected, done, *GRID) is None
