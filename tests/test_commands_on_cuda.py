"""The command line on a machine with two simulated GPUs: every command that trains accepts cuda, cuda:N and auto."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from faked_cuda import environment

pytestmark = pytest.mark.long  # every command on a simulated GPU

SCRIPT = """
import sys

from batchlab.cli.main import main
from batchlab.sweep.processes.server import WarmServer

with WarmServer() as server:  # one for all commands: warming it up takes longer than the rest
    server.warm_up()
    for line in sys.argv[1:]:
        print(f"{line}: {main(line.split())}", flush=True)
    print("torch in the parent:", "torch" in sys.modules)
"""
POINT = "model.width=8 eval_every=1437 examples=1437"
COMMANDS = {
    f"sweep device=auto batch_size=128,256 report=false {POINT}": 0,
    f"train device=cuda:1 study=second batch_size=512 {POINT}": 0,
    f"check device=cuda {POINT}": 0,
    f"verify device=cuda:1 accumulate=2 {POINT}": 0,
    "sweep device=cuda:9": 2,
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("user")
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, *COMMANDS],
        cwd=folder,
        env=environment("simulated", count=2, name=["First GPU", "Second GPU"], total_bytes=2**28),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return folder, ended


def test_each_ends_well_and_a_device_that_is_not_here_is_refused(done):
    _, ended = done
    message = ended.stdout.splitlines()

    assert [line for line in message if line.rpartition(": ")[0] in COMMANDS] == [
        f"{c}: {n}" for c, n in COMMANDS.items()
    ]
    assert message[-1] == "torch in the parent: False"
    assert "device=cuda:9" in ended.stderr.splitlines()[-1]


def test_auto_takes_the_gpu_and_the_records_name_the_one_that_was_used(done):
    folder, _ = done
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("runs/*/*/record.json"))]

    assert sorted((r["batch_size"], r["status"], r["environment"]["device_name"]) for r in records) == [
        (128, "completed", "First GPU"),
        (256, "completed", "First GPU"),
        (512, "completed", "Second GPU"),
    ]
    assert all(r["final"]["memory/peak_allocated_bytes"] > 0 for r in records)
