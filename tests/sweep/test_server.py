"""The warm server: what becomes of a sweep where it cannot import what it is to import."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
from batchlab.errors import BadRequest
from batchlab.sweep import server

server.PRELOAD = ["broken"]
with server.WarmServer() as warm:
    warm.warm_up()
    try:
        warm.start(print)
    except BadRequest as error:
        print(error)
"""


def test_a_server_that_cannot_import_pytorch_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise OSError('libcudart.so.13: cannot open shared object file')")

    ours = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((ours, str(tmp_path)))}
    command = [sys.executable, "-c", SCRIPT]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("the process that imports PyTorch for all points ended of an error")
    assert "`batchlab doctor`" in ended.stdout
    assert "libcudart.so.13" in ended.stderr
