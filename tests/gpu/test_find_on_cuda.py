"""The largest micro-batch under a limit of CUDA memory: the allocator refuses for real, by its memory fraction."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA, and PyTorch sees no CUDA device here"),
]
MIB = 2**20


def find(*words: str, cwd: Path) -> tuple[int, str, dict[str, Any]]:
    """Runs `batchlab find` on CUDA in `cwd`: its exit code, what it said, and what it kept."""
    command = [sys.executable, "-m", "batchlab.cli.main", "find", "device=cuda", *words]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)
    (kept,) = cwd.glob("runs/*/find/*.json")
    return done.returncode, done.stdout + done.stderr, json.loads(kept.read_text())


def test_it_ends_at_the_limit_with_a_prediction_near_it_and_twice_alike(tmp_path: Path) -> None:
    answers = []
    for _ in range(2):
        code, said, kept = find("model=cnn", "memory_limit=1GiB", cwd=tmp_path)

        assert code == 0, said
        assert kept["larger"]["outcome"] in ("oom", "retries")
        assert abs(kept["prediction_error"]) < 0.15
        held = [p["peaks"]["memory/peak_reserved_bytes"] for p in kept["probes"] if p["outcome"] == "fits"]
        assert 0.8 * 950 * MIB < max(held) < 975 * MIB
        assert not kept["exact"]
        answers.append(kept["largest"])
    assert answers[0] == answers[1]


def test_a_limit_above_what_is_free_is_told(tmp_path: Path) -> None:
    code, said, kept = find("memory_limit=1000GiB", cwd=tmp_path)

    assert code == 3
    assert "give a smaller memory_limit, or leave it out" in said
    assert kept["status"] == "failed"
