"""The warm server: what becomes of a sweep where it ends in place of starting a point."""

import os
import subprocess
import sys
from pathlib import Path

from batchlab.sweep.processes import server as serving

SCRIPT = """
from batchlab.errors import BadRequest
from batchlab.sweep.processes import server

with server.WarmServer() as warm:
    for name in ("broken", "killed", "leaves"):
        server.PRELOAD = [name]
        try:
            warm.start(print)
        except BadRequest as error:
            print(error)
"""
MODULES = {
    "broken": "raise OSError('libcudart.so.13: cannot open shared object file')",
    "killed": "import os; os.kill(os.getpid(), 9)",
    "leaves": "import os; os._exit(0)",
}


def test_a_server_that_ends_is_one_sentence_that_says_how_it_ended(tmp_path: Path) -> None:
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)

    ours = str(Path(__file__).resolve().parents[3])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((ours, str(tmp_path)))}
    command = [sys.executable, "-c", SCRIPT]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    assert ended.returncode == 0, ended.stderr
    broken, killed, leaves = ended.stdout.splitlines()
    who = "the server process, which imports PyTorch and starts the processes of points,"
    assert broken.startswith(f"{who} ended with exit code 1; its error is above; `batchlab doctor`")
    assert "libcudart.so.13" in ended.stderr
    assert killed.startswith(f"{who} was killed by SIGKILL, probably because memory ran out: run the command again")
    assert leaves.startswith(f"{who} ended (exit code 0)")
    assert "above" not in killed + leaves


def test_a_server_of_which_no_end_was_seen_is_reported_to_have_none(monkeypatch) -> None:
    monkeypatch.setattr(serving, "_server_pid", lambda: None)

    assert "did not start one (reset by peer)" in serving._why_no_child(OSError("reset by peer"))


def test_children_see_the_devices_of_the_handle_that_starts_them(monkeypatch) -> None:
    handle = serving.WarmServer(["GPU-a"])

    assert (handle.devices, handle.seeing(["GPU-b"]).devices, handle.seeing(()).devices) == (
        ("GPU-a",),
        ("GPU-b",),
        (),
    )
