"""Points in the jobs of other packages' launchers, and the signals that they and we listen to."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sweep_runs import Lab, Silent

from batchlab.cli.main import main
from batchlab.recording.disk import make_folder
from batchlab.recording.run_folder import holder, read_record, write_record
from batchlab.records import RunStatus
from batchlab.sweep.processes.elsewhere import exit_code_of_job, gist, keep_private, not_forced_twice, run_elsewhere
from batchlab.sweep.processes.interruption import SIGNALS, Interruption, other_handlers, watching_signals

pytestmark = pytest.mark.long  # each launcher starts interpreters


@pytest.fixture(autouse=True)
def as_in_a_shell() -> Iterator[None]:
    """The signals as for a program in the foreground: a shell starts background jobs with Ctrl-C ignored."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_nobody_dies_of_it(number: signal.Signals) -> None:
    before = signal.getsignal(number)

    with watching_signals() as interruption:
        signal.raise_signal(number)

    assert (interruption.count, interruption.number) == (1, number)
    assert interruption.exit_code == (130 if number == signal.SIGINT else 143)
    assert signal.getsignal(number) == before


def test_without_a_signal_there_is_no_exit_code() -> None:
    with watching_signals() as interruption:
        pass

    assert (interruption.count, interruption.number, interruption.exit_code) == (0, None, None)


def test_only_the_same_signal_twice_means_at_once() -> None:
    assert not Interruption([signal.SIGUSR2, signal.SIGTERM]).at_once  # Slurm: a warning, and then the time limit
    assert Interruption([signal.SIGUSR2, signal.SIGTERM, signal.SIGTERM]).at_once


def test_a_launchers_handler_is_called_when_we_hand_over_and_once() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGUSR2, lambda number, frame: heard.append(number))

    with watching_signals() as interruption:
        signal.raise_signal(signal.SIGUSR2)
        signal.raise_signal(signal.SIGUSR2)
        assert heard == []
    interruption.hand_over()
    interruption.hand_over()

    assert heard == [signal.SIGUSR2]


def test_handing_over_calls_nobody_whose_signal_did_not_come_and_not_python() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGUSR2, lambda number, frame: heard.append(number))

    with watching_signals() as interruption:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    interruption.hand_over()  # Python's own handler of SIGINT would raise KeyboardInterrupt

    assert heard == []


def test_a_launcher_hears_of_the_signal_when_the_point_has_ended(lab: Lab) -> None:
    point, found = lab.point("epochs=1000"), []

    class Signalling(Silent):
        def expect(self, run_id: str, budget_examples: int) -> None:
            signal.raise_signal(signal.SIGUSR2)

    def requeue(number: int, frame: object) -> None:
        found.append((holder(point.folder), read_record(point.folder)))

    signal.signal(signal.SIGUSR2, requeue)

    outcome = lab.run(point, spectator=Signalling())

    assert outcome.exit_code == 143
    ((held_by, record),) = found
    assert held_by is None  # nobody holds the folder that the next job wants
    assert record is not None
    assert record.status is RunStatus.INTERRUPTED


def test_what_was_ignored_stays_ignored() -> None:
    """A sweep under nohup outlives its terminal."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with watching_signals() as interruption:
        signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN

    assert interruption.count == 0
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_outside_the_main_thread_nothing_is_watched() -> None:
    found: list[object] = []

    def watch() -> None:
        with watching_signals() as interruption:
            found.extend((interruption.count, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()

    assert found == [0, signal.SIG_DFL]


def test_only_handlers_set_by_other_code_are_listed() -> None:
    def requeue(number: int, frame: object) -> None: ...

    assert other_handlers() == {}

    signal.signal(signal.SIGUSR2, requeue)

    assert other_handlers() == {signal.SIGUSR2: requeue}


def test_a_watch_around_another_is_not_notified_once_more() -> None:
    """It would give up a sweep that has ended well, whose table is still to be shown."""
    given_up: list[int] = []

    with watching_signals(then=lambda interruption: given_up.append(interruption.count)):
        with watching_signals() as inner:
            signal.raise_signal(signal.SIGUSR1)
        inner.hand_over()

    assert (inner.count, given_up) == (1, [])


def test_a_job_returns_no_result_where_its_launcher_leaves_the_end_to_slurm() -> None:
    assert [exit_code_of_job(code) for code in (0, 3, 130, 143)] == [0, 3, 130, 143]

    signal.signal(signal.SIGTERM, lambda number, frame: None)

    assert [exit_code_of_job(code) for code in (0, 3)] == [0, 3]
    with pytest.raises(SystemExit) as end:
        exit_code_of_job(143)
    assert end.value.code == 143


@pytest.mark.parametrize(
    ("variables", "forced"),
    [
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}, False),
        ({"SLURM_JOB_ID": "7"}, True),  # the first start; or a terminal in a job, where two sweeps have one id
        ({"SLURM_JOB_ID": "8", "SLURM_RESTART_COUNT": "1"}, True),  # put back before it began the point
        ({}, True),
    ],
)
def test_a_job_that_slurm_starts_again_resumes_a_forced_point(
    variables: dict[str, str], forced: bool, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = lab.point("force=true")
    sweep = lab.sweep(point)
    assert not_forced_twice(point, sweep).force  # nothing is there yet
    begun = point.new_record(RunStatus.INTERRUPTED, "", environment={"variables": {"SLURM_JOB_ID": "7"}})
    make_folder(point.folder)
    write_record(point.folder, begun)
    for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert not_forced_twice(point, sweep).force is forced


def test_a_signal_ends_the_wait_for_a_launcher(lab: Lab) -> None:
    reported: list[str] = []

    def launch(points: object) -> list[str]:
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("a launcher would wait for ever")

    assert run_elsewhere([lab.point()], launch, reported.append) == 143
    assert "no longer waiting" in reported[-1]


def test_a_launcher_that_gives_up_is_one_line(lab: Lab) -> None:
    reported: list[str] = []

    def launch(points: object) -> list[str]:
        raise RuntimeError("sbatch: error:\n  no such partition")

    assert run_elsewhere([lab.point()], launch, reported.append) is None
    assert reported[-1] == "the launcher failed: sbatch: error: no such partition; its other jobs may continue"


def test_slurms_launcher_without_slurm_is_refused_before_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit", reason="needs the extra slurm")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))  # no srun

    assert main(["sweep", "hydra/launcher=submitit_slurm", "device=cpu"]) == 2
    assert capsys.readouterr().err == (
        "batchlab: hydra/launcher=submitit_slurm needs Slurm (srun was not found): use "
        "hydra/launcher=submitit_local, or jobs=2 without a launcher\n"
    )
    assert list(tmp_path.iterdir()) == []
    assert main(["sweep", "hydra/launcher=submitit_slurm", "device=cpu", "--dry-run"]) == 0


def test_of_a_jobs_traceback_its_last_error_is_reported() -> None:
    trace = 'Traceback (most recent call last):\n  File "a.py", line 1\n    raise error\nValueError: no room\n'

    assert gist(f"Job failed with trace:\n----\n{trace}\n----\nlogs:\n  - /a/b.err") == "ValueError: no room"
    assert gist("sbatch: error:\n  ValueError is not a partition") == "sbatch: error: ValueError is not a partition"


def test_what_several_jobs_complain_of_is_reported_once(lab: Lab) -> None:
    reported: list[str] = []

    assert run_elsewhere([lab.point()], lambda points: ["no CUDA here"] * 3, reported.append) is None
    assert reported.count("no CUDA here") == 1


@pytest.mark.parametrize(("mode", "warned"), [(0o700, False), (0o755, False), (0o775, True), (0o757, True)])
def test_a_folder_of_pickles_that_others_may_write_to_is_reported(mode: int, warned: bool, tmp_path: Path) -> None:
    reported: list[str] = []
    folder = tmp_path / ".jobs"
    folder.mkdir()
    folder.chmod(mode)

    keep_private(folder, reported.append)

    assert ["chmod go-w" in line for line in reported] == [True] * warned


def test_a_new_folder_of_pickles_is_its_owners_alone(tmp_path: Path) -> None:
    reported: list[str] = []
    umask = os.umask(0)
    try:
        keep_private(tmp_path / "runs" / ".jobs", reported.append)
    finally:
        os.umask(umask)

    assert (tmp_path / "runs" / ".jobs").stat().st_mode & 0o777 == 0o700
    assert reported == []


@pytest.mark.parametrize(
    ("launcher", "package", "sizes"),
    [
        ("submitit_local", "hydra_submitit_launcher", [256]),
        pytest.param("joblib", "hydra_joblib_launcher", [256], marks=pytest.mark.slow),
    ],
)
def test_a_launcher_on_this_machine_runs_every_point(
    launcher: str, package: str, sizes: list[int], tmp_path: Path
) -> None:
    if importlib.util.find_spec(f"hydra_plugins.{package}") is None:
        pytest.skip(f"{package} is not installed: pip install 'batchlab[slurm,joblib]'")
    grid = f"batch_size={','.join(map(str, sizes))}"

    done = swept(grid, f"hydra/launcher={launcher}", cwd=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/*/record.json")]
    assert sorted((r["batch_size"], r["status"]) for r in records) == [(size, "completed") for size in sizes]
    assert done.stdout.count("completed") == len(sizes)  # the table
    assert f"points for the launcher: {len(sizes)}" in done.stderr
    assert (tmp_path / "runs/.jobs").stat().st_mode & 0o777 == 0o700
    again = swept(grid, f"hydra/launcher={launcher}", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert "launcher" not in again.stderr  # there was nothing left for it


def swept(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [
        str(Path(sys.executable).with_name("batchlab")),
        "sweep",
        "device=cpu",
        "default_epochs=1",
        "report=false",
        *words,
    ]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=180)
