"""A point on each free GPU of a machine, which is no part of what the point is."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from faked_cuda import environment
from plain_defaults import configured, sweep_configured
from sweep_runs import Silent

from batchlab.errors import BadRequest
from batchlab.host.lease import take_device
from batchlab.host.nvml import Gpu
from batchlab.recording.files import now_utc
from batchlab.recording.new_record import new_record
from batchlab.recording.run_folder import hold, read_record
from batchlab.records import Facts, RunRecord, RunStatus
from batchlab.sweep import run_sweep as sweeping
from batchlab.sweep.checks import DeviceUnusable
from batchlab.sweep.points import Point, SweepOutcome
from batchlab.sweep.processes import server as serving
from batchlab.sweep.processes.attempt import WEDGED, Attempt
from batchlab.sweep.processes.jobs import Job
from batchlab.sweep.processes.server import ended
from batchlab.sweep.processes.supervisor import run_grid
from batchlab.worker.entry import gpu_of
from batchlab.worker.messages import Assignment, Ended

pytestmark = pytest.mark.long  # sweeps over four simulated GPUs

GPUS = tuple(Gpu(f"GPU-{letter}", "NVIDIA H200") for letter in "abcd")


class Process:
    """A process that ends when it is told to, or never."""

    def __init__(self, *, never_ends: bool = False) -> None:
        self.sentinel, self._end = os.pipe()
        self.never_ends, self.kills, self.exitcode = never_ends, 0, None
        self.waited: list[float] = []

    def finish(self, code: int = 0) -> None:
        self.exitcode = code
        os.close(self._end)

    def is_alive(self) -> bool:
        return self.exitcode is None

    def join(self, seconds: float | None = None) -> None:
        self.waited.append(-1.0 if seconds is None else seconds)

    def kill(self) -> None:
        self.kills += 1
        if not self.never_ends and self.is_alive():
            self.finish(-signal.SIGKILL)

    terminate = kill


class Server:
    """Starts points that answer as soon as `at_once` run, or none are left to start."""

    def __init__(self, points: int, at_once: int) -> None:
        self.left, self.at_once = points, at_once
        self.devices: Sequence[str] = ()
        self.given: list[tuple[str, ...]] = []  # the device of each config, and the GPU
        self.running: list[tuple[Process, Connection, RunRecord]] = []
        self.together: list[list[str]] = []  # the GPUs that were used at once
        self.patience = threading.Timer(0.0, self.answer)

    def seeing(self, devices: Sequence[str]) -> "Server":
        self.devices = devices
        return self

    def start(self, target: object, assigned: Assignment, sweep: object) -> tuple[Any, Connection]:
        ours, theirs = Pipe()
        process = Process()
        self.given.append((assigned.config.device, *self.devices))
        record = new_record(assigned.config, assigned.identity, RunStatus.COMPLETED, reason="", ended_at=now_utc())
        self.running.append((process, theirs, record))
        self.left -= 1
        self.patience.cancel()
        if len(self.running) == self.at_once or not self.left:
            self.answer()
        else:
            self.patience = threading.Timer(5.0, self.answer)  # a sweep that starts no more fails, and does not hang
            self.patience.start()
        return process, ours

    def answer(self) -> None:
        running, self.running = self.running, []
        self.together.append([gpu for _, gpu in self.given[-len(running) :]])
        for process, connection, record in running:
            connection.send(Ended(record.run_id, record))
            process.finish()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("batchlab.host.gpu_pool.computing_on", lambda uuid: frozenset())


def points(count: int, **changes: Any) -> list[Point]:
    return [Point(configured(device="cuda", seed=seed, **changes)) for seed in range(count)]


def run(server: Server, count: int, gpus: Sequence[Gpu] = GPUS) -> SweepOutcome:
    return run_grid(points(count), sweep_configured(jobs=4), server, Silent(), gpus)  # type: ignore[arg-type]


def test_each_point_at_once_has_a_gpu_of_its_own_and_no_config_names_it() -> None:
    server = Server(8, at_once=4)

    outcome = run(server, 8)

    assert [sorted(map(str, together)) for together in server.together] == [["GPU-a", "GPU-b", "GPU-c", "GPU-d"]] * 2
    assert {device for device, _ in server.given} == {"cuda"}
    assert {record.config["device"] for record in outcome.records} == {"cuda"}


def test_a_gpu_of_another_sweep_is_left_to_it() -> None:
    server = Server(4, at_once=2)
    with take_device(["GPU-b"]), take_device(["GPU-d"]):
        run(server, 4)

    assert [sorted(map(str, together)) for together in server.together] == [["GPU-a", "GPU-c"]] * 2


def test_a_gpu_of_another_program_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = frozenset({2**22 + 1})
    monkeypatch.setattr(
        "batchlab.sweep.processes.jobs.without_other_programs",
        lambda gpus: [gpu for gpu in gpus if not (foreign if gpu.uuid == "GPU-a" else frozenset())],
    )
    server = Server(6, at_once=3)

    run(server, 6)

    assert [sorted(map(str, together)) for together in server.together] == [["GPU-b", "GPU-c", "GPU-d"]] * 2


def test_where_all_are_in_use_it_waits_for_one_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peak of a run next to another sweep's would include the memory of both."""
    server, waits, reported = Server(2, at_once=1), 0, list[str]()

    class Listening(Silent):
        def say(self, text: str) -> None:
            reported.append(text)

    with ExitStack() as others:
        for gpu in GPUS:
            others.enter_context(take_device([gpu.uuid]))

        def wait_for_others(seconds: float) -> None:
            nonlocal waits
            waits += 1
            if waits == 3:
                others.close()  # the other sweep ends

        monkeypatch.setattr("batchlab.sweep.processes.supervisor.time.sleep", wait_for_others)
        run_grid(points(2), sweep_configured(jobs=4), server, Listening(), GPUS)  # type: ignore[arg-type]

    assert waits == 3
    assert len(server.given) == 2
    assert [text.partition(":")[0] for text in reported] == ["waiting for a GPU"]


def test_programs_on_the_gpus_are_listed_now_and_then_while_a_point_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    requested: list[float] = []
    now = 0.0

    def without_other_programs(gpus: Sequence[Gpu]) -> list[Gpu]:
        requested.append(now)
        return list(gpus) if now > 12 else []

    def wait_for_others(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr("batchlab.sweep.processes.jobs.without_other_programs", without_other_programs)
    monkeypatch.setattr("batchlab.sweep.processes.supervisor.time.sleep", wait_for_others)
    monkeypatch.setattr("batchlab.sweep.processes.jobs.time.monotonic", lambda: now)
    run(Server(1, at_once=1), 1)

    assert len(requested) == 4
    assert requested == pytest.approx([0, 5, 10, 15], abs=0.7)


def test_a_gpu_that_does_not_even_start_has_no_uuid_and_the_run_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """`DeferredCudaCallError` is no RuntimeError, and here nothing would be recorded of it."""

    def refuses(requested: str) -> None:
        raise Exception("CUDA call failed lazily at initialization")

    monkeypatch.setattr("batchlab.worker.entry.uuid_of", lambda device: None)
    monkeypatch.setattr("batchlab.training.devices.named.device_named", refuses)

    assert gpu_of("cuda") is None


def attempt_with(process: Process, clock: Callable[[], float]) -> Attempt:
    (point,) = points(1)
    return Attempt(Job((point,)), process, Pipe()[0], ExitStack(), clock, 0.0, 0)  # type: ignore[arg-type]


def test_a_process_that_never_ends_is_killed_recorded_and_left_behind() -> None:
    now = iter([100.0, 120.0, 131.0, 131.0, 131.0])
    attempt = attempt_with(Process(never_ends=True), lambda: next(now))
    released: list[str] = []
    attempt.closing.callback(lambda: released.append("its GPU"))
    process: Any = attempt.process

    attempt.end_now()
    attempt.enforce_timeouts()
    assert not attempt.finished  # 20 s are not long for a process with much memory to give back
    attempt.enforce_timeouts()
    assert attempt.finished
    attempt.close()
    with hold(attempt.job.point.folder):  # as the process does to the end of its days
        (run,) = attempt.runs.values()
        record = attempt.final_record(run)

    assert (record.status, record.reason) == (RunStatus.KILLED, WEDGED)
    assert read_record(attempt.job.point.folder) == record
    assert released == []
    assert all(seconds >= 0 for seconds in process.waited)  # no wait without an end


def test_a_process_that_is_slow_to_end_is_waited_for_and_killed() -> None:
    process: Any = Process()

    assert ended(process, 30.0)
    assert (process.waited[0], process.kills) == (30.0, 1)


def test_a_program_does_not_wait_at_its_end_for_what_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    process: Any = Process(never_ends=True)
    monkeypatch.setattr(serving.multiprocessing.process, "_children", {process})

    assert not ended(process, 30.0)
    assert serving.multiprocessing.process._children == set()


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """A machine whose GPU nothing can be computed on; the devices of each grid that was checked."""
    grids: list[list[str]] = []

    class Cold:
        def __enter__(self) -> "Cold":
            return self

        def __exit__(self, *_: object) -> None:
            """Nothing runs."""

        def seeing(self, devices: Sequence[str]) -> "Cold":
            return self

        def warm_up(self) -> None:
            """Nothing is imported."""

    def check(left: Sequence[Point], server: object) -> list[Facts]:
        grids.append([point.config.device for point in left])
        if "cuda" in grids[-1]:
            raise DeviceUnusable("cuda", "its memory is full", "wait")
        return [Facts(torch="")] * len(left)

    def ran(points: Sequence[Point], *_: object) -> SweepOutcome:
        return SweepOutcome((), 0, 130)

    monkeypatch.setattr(sweeping, "WarmServer", Cold)
    monkeypatch.setattr(sweeping, "check_grid", check)
    monkeypatch.setattr(sweeping, "run_grid", ran)
    return grids


def test_a_gpu_that_cannot_compute_sends_device_auto_to_the_cpu(
    tried: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    (chosen,) = points(1, study="here")
    config = configured(device="cuda", study="here")

    _, final = sweeping.run_sweep_and_points([Point(config, auto=True)], sweep_configured())

    assert tried == [["cuda"], ["cpu"]]
    assert [point.run_id for point in final] == [Point(configured(device="cpu", study="here")).run_id]
    assert final[0].run_id != chosen.run_id
    assert "device=auto uses the CPU: the GPU cannot be used: its memory is full; wait\n" in capsys.readouterr().err


def test_a_gpu_that_cannot_compute_is_refused_to_who_asks_for_it(tried: list[list[str]]) -> None:
    config = configured(device="cuda")

    with pytest.raises(BadRequest, match="device=cuda cannot be used: its memory is full; wait, or use device=cpu"):
        sweeping.run_sweep([Point(config), Point(configured(device="cuda", seed=1), auto=True)], sweep_configured())
    assert tried == [["cuda", "cuda"]]


def test_what_comes_before_the_points_is_done_on_a_gpu_that_nobody_uses(
    tried: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first may be full of somebody else's tensors, and the others free."""
    given: list[tuple[str, ...]] = []
    monkeypatch.setattr(serving.WarmServer, "warm_up", lambda self: None)
    monkeypatch.setattr(sweeping, "WarmServer", serving.WarmServer)

    def check(left: Sequence[Point], server: serving.WarmServer) -> list[Facts]:
        given.append(server.devices)
        return [Facts(torch="")] * len(left)

    monkeypatch.setattr(sweeping, "gpus_of", lambda points, jobs: GPUS)
    monkeypatch.setattr(sweeping, "check_grid", check)
    monkeypatch.setattr(sweeping, "check_unchanged", lambda left, found, sweep: None)
    for in_use in (GPUS[:1], GPUS):
        foreign = {gpu.uuid: frozenset({2**22 + 1}) for gpu in in_use}
        monkeypatch.setattr(
            sweeping, "without_other_programs", lambda gpus, there=foreign: [g for g in gpus if g.uuid not in there]
        )
        sweeping.run_sweep(points(2), sweep_configured(jobs=4))

    assert given == [("GPU-b",), ("GPU-a",)]


def test_a_sweep_over_four_gpus_of_two_models_is_one_group_and_the_runs_that_one_gpu_makes(tmp_path: Path) -> None:
    """The command line itself, on a machine with GPUs that compute with the CPU's tensors."""
    models = ["NVIDIA A100", "NVIDIA A100", "NVIDIA L4", "NVIDIA L4"]
    words = ["device=cuda", "jobs=4", "batch_size=64,256", "seed=0,1", "threads=1", "examples=512", "study=four"]
    done = subprocess.run(
        [sys.executable, "-m", "batchlab.cli.main", "sweep", *words],
        cwd=tmp_path,
        env=environment("simulated", count=4, name=models),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    records = [RunRecord.from_dict(json.loads(path.read_text())) for path in tmp_path.glob("runs/four/*/record.json")]
    plain = {"device": "cuda", "threads": 1, "examples": 512, "study": "four"}
    alone = [configured(batch_size=size, seed=seed, **plain) for size in (64, 256) for seed in (0, 1)]
    assert sorted(record.run_id for record in records) == sorted(Point(config).run_id for config in alone)
    assert [record.config["device"] for record in records] == ["cuda"] * 4
    assert len({record.environment["variables"]["CUDA_VISIBLE_DEVICES"] for record in records}) == 4
    assert "GPU-00000000" not in done.stdout + done.stderr + repr(records)
    report = json.loads((tmp_path / "runs/four/report.json").read_text())
    assert len(report["fits"]["groups"]) == 1
    assert report["measured_on"] == {"NVIDIA A100": 2, "NVIDIA L4": 2}
    several = "NVIDIA A100 (2 points), NVIDIA L4 (2 points): speeds and memory peaks of different models"
    assert f"Measured on {several}" in done.stdout
    assert done.stderr.count("the GPUs of this sweep are of several models") == 1
