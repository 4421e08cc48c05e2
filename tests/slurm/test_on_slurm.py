"""Sweeps on a real Slurm, such as `scripts/slurm_here start` makes one: `pytest -m slurm tests/slurm`, 6 minutes."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slurm
LONG = ("device=cpu", "batch_size=8", "epochs=200")  # half a minute
PATIENCE_SECONDS = 400.0


@pytest.fixture(scope="module")
def slurm(request: pytest.FixtureRequest, repository: Path) -> dict[str, str]:
    """The environment in which a Slurm answers."""
    if "slurm" not in request.config.getoption("markexpr"):
        pytest.skip("takes minutes: ask for it with -m slurm")
    if importlib.util.find_spec("hydra_plugins.hydra_submitit_launcher") is None:
        pytest.skip("hydra-submitit-launcher is not installed: pip install 'batchlab[slurm]'")
    if shutil.which("scontrol") is None:
        pytest.skip("no Slurm here: scripts/slurm_here start --install")
    environment = dict(os.environ)
    if "UP" not in output_of("scontrol", "ping", environment=environment):
        said = output_of(str(repository / "scripts/slurm_here"), "status", environment=environment)
        found = re.search(r"SLURM_CONF=(\S+)", said)
        if found is None:
            pytest.skip("no Slurm answers: scripts/slurm_here start")
        environment["SLURM_CONF"] = found[1]
    return environment


@pytest.fixture(scope="module")
def undisturbed(slurm: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the long point, run on this machine without a launcher and to its end."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = subprocess.run(command(*LONG), cwd=folder, env=slurm, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_sweep_on_slurm_completes_and_shows_its_table(slurm: dict[str, str], tmp_path: Path) -> None:
    with OnSlurm("device=cpu", "batch_size=64,256", "default_epochs=1", cwd=tmp_path, environment=slurm) as sweep:
        code = sweep.process.wait(timeout=PATIENCE_SECONDS)

    assert code == 0, sweep.output
    assert sorted((r["batch_size"], r["status"]) for r in records(tmp_path)) == [(64, "completed"), (256, "completed")]
    assert sweep.output.count("completed") == 2  # the table
    assert (tmp_path / "runs/.jobs").stat().st_mode & 0o077 == 0


def test_a_signal_to_the_job_requeues_it_and_it_resumes(
    slurm: dict[str, str], undisturbed: Path, tmp_path: Path
) -> None:
    with OnSlurm(*LONG, "force=true", cwd=tmp_path, environment=slurm) as sweep:
        sweep.wait_for(lambda: measured(tmp_path) > 10)
        sweep.call("scancel", "--signal=USR2", sweep.job())
        code = sweep.process.wait(timeout=PATIENCE_SECONDS)

    assert code == 0, sweep.output
    assert "resumes from its checkpoint" in logs(tmp_path)
    assert_resumed_exactly(tmp_path, undisturbed, attempts=[2])


def test_a_job_that_slurm_preempts_resumes(slurm: dict[str, str], undisturbed: Path, tmp_path: Path) -> None:
    """Slurm's own pre-emption: SIGTERM, the end of the job, and the same job again when there is room."""
    with OnSlurm(*LONG, cwd=tmp_path, environment=slurm) as sweep:
        if "first" not in sweep.call("sinfo", "--noheader", "--format=%R").split():
            pytest.skip("this Slurm has no partition that goes first: scripts/slurm_here start makes one that has")
        sweep.wait_for(lambda: measured(tmp_path) > 10)
        sweep.call("sbatch", "--partition=first", "--exclusive", "--output=/dev/null", "--wrap=true")
        code = sweep.process.wait(timeout=PATIENCE_SECONDS)

    assert code == 0, sweep.output
    assert "PREEMPTION" in logs(tmp_path)
    assert_resumed_exactly(tmp_path, undisturbed, attempts=[2])


def test_a_job_at_its_time_limit_is_requeued_and_resumes(
    slurm: dict[str, str], undisturbed: Path, tmp_path: Path
) -> None:
    # Slurm looks at the time every 30 seconds, and so warns 10 to 40 seconds after the start.
    limit = ("timeout_min=1", "signal_delay_s=50", "max_num_timeout=20")
    with OnSlurm(*LONG, *(f"hydra.launcher.{word}" for word in limit), cwd=tmp_path, environment=slurm) as sweep:
        code = sweep.process.wait(timeout=PATIENCE_SECONDS)

    assert code == 0, sweep.output
    assert "this job is timed-out" in logs(tmp_path)
    assert_resumed_exactly(tmp_path, undisturbed, attempts=range(2, 20))


class OnSlurm:
    """A sweep of `words` under Slurm, and the Slurm it runs on; leaving it ends its jobs."""

    def __init__(self, *words: str, cwd: Path, environment: dict[str, str]) -> None:
        self.name = f"batchlab-test-{os.getpid()}-{time.monotonic_ns()}"
        self.environment = environment
        self.told = cwd / "said"
        with self.told.open("w") as said:
            self.process = subprocess.Popen(
                command(*words, "hydra/launcher=submitit_slurm", f"hydra.launcher.name={self.name}"),
                cwd=cwd,
                env=environment,
                stdout=said,
                stderr=said,
            )

    def __enter__(self) -> "OnSlurm":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.call("scancel", f"--name={self.name}")

    @property
    def output(self) -> str:
        return self.told.read_text()

    def call(self, *words: str) -> str:
        return output_of(*words, environment=self.environment)

    def job(self) -> str:
        return self.call("squeue", "--noheader", "--format=%i", f"--name={self.name}").strip()

    def wait_for(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not holds():
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.2)


def command(*words: str) -> list[str]:
    return [str(Path(sys.executable).with_name("batchlab")), "sweep", "device=cpu", *words]


def output_of(*words: str, environment: dict[str, str]) -> str:
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False).stdout


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in folder.glob("runs/*/*/record.json")]


def measured(folder: Path) -> int:
    """How many measurements the runs below `folder` have written down."""
    return sum(len(path.read_text().splitlines()) for path in folder.glob("runs/*/*/metrics.jsonl"))


def logs(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.glob("runs/.jobs/.submitit/*/*_log.*"))


def science(folder: Path) -> Iterator[tuple[str, Any, int]]:
    """Everything measured in the one run below `folder` that does not depend on the machine's speed."""
    (journal,) = folder.glob("runs/*/*/metrics.jsonl")
    for line in journal.read_text().splitlines():
        entry = json.loads(line)
        if not entry["name"].startswith(("speed/", "memory/")):
            yield entry["name"], entry["value"], entry["examples"]


def assert_resumed_exactly(folder: Path, undisturbed: Path, *, attempts: Any) -> None:
    (record,) = records(folder)
    assert record["status"] == "completed"
    assert record["attempts"] in attempts
    found, expected = list(science(folder)), list(science(undisturbed))
    assert len(expected) > 100
    assert found == expected
