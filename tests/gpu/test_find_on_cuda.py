"""The largest micro-batch under a CUDA memory limit, which the real allocator enforces by its memory fraction.
A search starts a dozen processes and takes half a minute, so it runs only with -m slow.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from batchlab.cli.main import main
from batchlab.sweep.processes.server import WarmServer
from batchlab.training.devices.cuda import visible_devices

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not visible_devices(), reason="needs CUDA, and PyTorch finds no CUDA device here"),
]
MIB = 2**20


@pytest.fixture
def here(server: WarmServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and a warm server."""
    monkeypatch.chdir(tmp_path)
    server.warm_up()
    return tmp_path


def find(*words: str, study: Path) -> tuple[int, dict[str, Any]]:
    """Runs `batchlab find` on CUDA; returns its exit code and its result."""
    code = main(["find", "device=cuda", f"study={study.name}", *words])
    (kept,) = study.glob("find/*.json")
    return code, json.loads(kept.read_text())


@pytest.mark.slow
def test_it_ends_at_the_limit_with_a_prediction_near_it_and_twice_alike(here: Path) -> None:
    found = []
    for number in range(2):
        code, kept = find("model=cnn", "memory_limit=1GiB", study=here / f"runs/search{number}")

        assert code == 0
        assert kept["larger"]["outcome"] in ("oom", "retries")
        assert abs(kept["prediction_error"]) < 0.15
        held = [p["peaks"]["memory/peak_reserved_bytes"] for p in kept["probes"] if p["outcome"] == "fits"]
        assert 0.8 * 950 * MIB < max(held) < 975 * MIB
        assert not kept["exact"]
        found.append(kept["largest"])
    assert found[0] == found[1]


def test_a_limit_above_what_is_free_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, kept = find("memory_limit=1000GiB", study=here / "runs/beyond")

    assert code == 3
    message = capsys.readouterr()
    assert "use a smaller memory_limit, or leave it out" in message.out + message.err
    assert kept["status"] == "failed"
