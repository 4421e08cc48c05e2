"""`batchlab dashboard` is TensorBoard for one study, on 127.0.0.1 and nowhere else."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from invented.records import environment, record

from batchlab.cli.commands.dashboard import choose_study, free_port, tensorboard_arguments
from batchlab.cli.main import main
from batchlab.errors import BadRequest
from batchlab.recording.run_folder import write_record

WAIT = 120  # seconds; TensorBoard is slow to import on a busy machine


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two studies, of which `old` comes last by name; the working folder is above them."""
    for study, written in (("new", 2_000_000_000), ("old", 1_000_000_000)):
        folder = tmp_path / "runs" / study / "b8-0"
        folder.mkdir(parents=True)
        write_record(folder, record(8))
        for path in (folder / "record.json", folder):
            os.utime(path, (written, written))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def test_tensorboard_gets_the_study_and_this_host_only() -> None:
    arguments = tensorboard_arguments(Path("runs/digits-mlp"), 6007)

    assert "--logdir=runs/digits-mlp" in arguments
    assert "--port=6007" in arguments
    assert [argument for argument in arguments if "host" in argument or "bind" in argument] == ["--host=127.0.0.1"]


@pytest.mark.parametrize("option", ["--host=0.0.0.0", "--host", "--bind_all", "--bind-all", "--hos=0.0.0.0"])
def test_another_host_is_refused(option: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", option]) == 2

    assert ("does not take --hos=" if option.startswith("--hos=") else "is refused") in capsys.readouterr().err


def test_the_study_last_written_is_the_default(runs: Path) -> None:
    assert choose_study(None, Path("runs")) == Path("runs/new")
    assert choose_study("old", Path("runs")) == Path("runs/old")

    os.utime(runs / "old" / "b8-0" / "record.json", (2_100_000_000, 2_100_000_000))
    assert choose_study(None, Path("runs")) == Path("runs/old")


def test_a_study_that_is_not_there_is_a_bad_request_with_those_that_are(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dashboard", "runs/none"]) == 2
    assert "there is no study 'runs/none' in runs/; the studies there are: new, old" in capsys.readouterr().err
    assert main(["dashboard", "--runs-dir", "empty"]) == 2
    assert "there are no runs yet in empty/: start one with" in capsys.readouterr().err


def test_a_port_in_use_is_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        assert port < free_port(port) < port + 100
    assert free_port(port) == port


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(BadRequest, match="a port must be a number from 1 to 65535"):
        free_port(port)


def test_tensorboard_really_starts_and_ctrl_c_ends_it_without_a_traceback(runs: Path) -> None:
    port = free_port(16006)
    process = subprocess.Popen(
        [sys.executable, "-m", "batchlab.cli.main", "dashboard", "new", "--port", str(port)],
        # a shell starts background jobs with Ctrl-C ignored, which their children inherit
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        title = _ask(f"http://127.0.0.1:{port}/data/environment", process)
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=WAIT)
    finally:
        process.kill()
        process.wait()

    assert '"window_title": "batchlab: new"' in title
    assert process.returncode == 0
    assert f"ssh -L {port}:127.0.0.1:{port}" in said
    assert "Traceback" not in said


def _ask(url: str, process: "subprocess.Popen[str]") -> str:
    end = time.monotonic() + WAIT
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url) as answer:
                return str(answer.read().decode())
        except urllib.error.URLError:
            time.sleep(0.2)
    raise AssertionError(f"no answer at {url}")
