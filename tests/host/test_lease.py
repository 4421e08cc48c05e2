"""Leases between real processes: who met whom, who is dead, and who has a device alone."""

import contextlib
import multiprocessing
import os
import select
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from batchlab.errors import BadRequest
from batchlab.host import lease
from batchlab.host.lease import leased, take_device

REPOSITORY = Path(__file__).resolve().parents[2]
HOLDER = """
import sys
from batchlab.host.lease import leased
for device in sys.stdin:  # a line takes the device, the next lets it go
    with leased(device.strip()) as lease:
        print("holding", flush=True)
        sys.stdin.readline()
        print(lease.shared(), flush=True)
    print(lease.shared(), flush=True)
"""


class Holder:
    """Another process, which holds a device from `take` to `give`."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"XDG_RUNTIME_DIR": str(folder), "PYTHONPATH": str(REPOSITORY), **environment},
        )

    def take(self, device: str = "cpu") -> "Holder":
        self._say(device)
        assert self._hear() == "holding"
        return self

    def give(self) -> bool:
        """Whether it met anybody: it says so before it lets go and after, and must say the same."""
        self._say("")
        during, after = self._hear(), self._hear()
        assert during == after
        return during == "True"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def _hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of leases of the test's own, and nothing reported yet."""
    folder = tmp_path / "runtime"
    folder.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    lease.say_once.cache_clear()
    return folder


@pytest.fixture
def holder(runtime: Path) -> Iterator[Callable[..., Holder]]:
    """Makes holders, and ends them."""
    made: list[Holder] = []

    def make(**environment: str) -> Holder:
        made.append(Holder(runtime, **environment))
        return made[-1]

    yield make
    for one in made:
        one.end()


def own(runtime: Path) -> Path:
    return runtime / f"batchlab-{os.getuid()}"


def left(runtime: Path, device: str = "cpu") -> set[str]:
    return {path.suffix or path.name for path in (own(runtime) / "leases" / device).iterdir()}


def test_two_that_overlap_are_both_marked(holder: Callable[..., Holder], runtime: Path) -> None:
    first, second = holder().take(), holder().take()

    assert (first.give(), second.give()) == (True, True)
    assert left(runtime) == {"gate"}


def test_the_one_that_stays_longer_is_marked_too(holder: Callable[..., Holder]) -> None:
    first, second = holder().take(), holder().take()

    assert (second.give(), first.give()) == (True, True)


def test_one_after_the_other_is_not_sharing(holder: Callable[..., Holder]) -> None:
    first, second = holder(), holder()

    assert [one.take().give() for one in (first, second, first, second)] == [False] * 4


def test_a_mark_does_not_outlive_its_lease(holder: Callable[..., Holder]) -> None:
    first, second = holder().take(), holder().take()
    second.give()
    first.give()

    assert [one.take().give() for one in (first, second)] == [False, False]


def test_in_a_chain_each_met_its_neighbour(holder: Callable[..., Holder]) -> None:
    """a with b, b with c, and never a with c; d came when all were gone."""
    a, b, c, d = (holder() for _ in range(4))
    a.take(), b.take()
    a_met = a.give()
    c.take()
    b_met, c_met = b.give(), c.give()
    d_met = d.take().give()

    assert (a_met, b_met, c_met, d_met) == (True, True, True, False)


def test_a_killed_holder_shares_with_nobody_who_comes_later(holder: Callable[..., Holder], runtime: Path) -> None:
    killed, other = holder().take(), holder().take()
    killed.kill()
    assert other.give()  # it was there
    assert ".lease" in left(runtime)

    assert not holder().take().give()
    assert left(runtime) == {"gate"}  # with all that it left


def test_several_points_of_one_process_share_too() -> None:
    with leased("cpu") as first:
        assert not first.shared()
        with leased("cpu") as second:
            assert second.shared()
        assert first.shared()


def test_nothing_stays_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with leased("cpu"), leased("cpu"), take_device(["cuda:0"]), take_device(["cuda:0"]):
            pass

    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_lease_that_ended_still_knows_whom_it_met() -> None:
    with leased("cpu") as first, leased("cpu"):
        pass

    assert first.shared()


def test_a_lease_that_could_not_end_properly_still_knows_whom_it_met(monkeypatch: pytest.MonkeyPatch) -> None:
    with leased("cpu") as first:
        with leased("cpu"):
            pass
        monkeypatch.setattr("batchlab.host.locks.locked", refuse)

    assert first.shared()


def test_a_child_of_a_fork_keeps_neither_lease_nor_device() -> None:
    """As a DataLoader's workers would: they have copies of the descriptors."""
    reading, writing = os.pipe()
    with leased("cuda:0"), take_device(["cuda:1"]):
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    try:
        with leased("cuda:0") as later, take_device(["cuda:1"]) as taken:
            assert not later.shared()
            assert taken == "cuda:1"
    finally:
        os.close(writing)
        os.waitpid(child, 0)
        os.close(reading)


@pytest.mark.parametrize(
    ("one", "other", "visible", "shared"),
    [
        ("cpu", "cuda:0", "", False),
        ("cuda:0", "cuda:1", "", False),
        ("cuda", "cuda:0", "", True),
        ("cuda:3", "cuda:1", "0,3", True),  # the other process counts only those it sees
        ("cuda:1", "cuda:1", "0,3", False),
        ("cuda:3", "cuda", "3", True),
    ],
)
def test_a_device_is_the_same_however_it_is_called(
    one: str, other: str, visible: str, shared: bool, holder: Callable[..., Holder]
) -> None:
    first, second = holder().take(one), holder(CUDA_VISIBLE_DEVICES=visible).take(other)

    assert (first.give(), second.give()) == (shared, shared)


def test_the_folder_is_private(runtime: Path) -> None:
    before = os.umask(0)
    try:
        with leased("cpu"):
            pass
    finally:
        os.umask(before)

    assert stat.S_IMODE(own(runtime).stat().st_mode) == 0o700


def test_without_a_runtime_folder_it_is_the_one_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "of-another-machine"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with leased("cpu") as held:
        assert held.unknown == ""
    assert left(tmp_path) == {"gate"}


def refuse(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def plant_link(path: Path) -> None:
    (path.parent / "victim").mkdir()
    path.symlink_to(path.parent / "victim")


def plant_writable(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


@pytest.mark.parametrize("plant", [plant_link, plant_writable, Path.touch])
def test_a_folder_that_may_be_another_users_is_not_used_and_reported_once(
    plant: Callable[[Path], None], runtime: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(own(runtime))

    for _ in range(2):
        with leased("cpu") as held:
            assert "whether other points share cpu with this one is not known" in held.unknown
            assert "only you can write" in held.unknown
            assert not held.shared()
    with pytest.raises(BadRequest, match=r"use jobs=1, or set XDG_RUNTIME_DIR"), take_device(["cuda:0"]):
        pytest.fail("a device was taken without a lock")

    assert capsys.readouterr().err.count(str(own(runtime))) == 1
    assert [path for path in runtime.rglob("*") if path != own(runtime) and path.name != "victim"] == []


def test_a_folder_of_another_user_is_not_used(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = os.getuid()
    own(runtime).mkdir(mode=0o700)
    (runtime / f"batchlab-{mine + 1}").mkdir(mode=0o700)  # made by `mine`, in the place of the next user's
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)

    with leased("cpu") as held:
        assert "only you can write" in held.unknown


@pytest.mark.parametrize("call", ["locked", "create", "open_to_lock", "remove", "make_private"])
def test_a_disk_that_refuses_never_stops_a_point(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with leased("cpu"):
        monkeypatch.setattr(f"batchlab.host.locks.{call}", refuse)
        with leased("cpu") as second:
            pass
    if call != "remove":
        assert "No space left on device" in second.unknown


def test_a_folder_that_is_gone_at_the_end_is_no_error(runtime: Path) -> None:
    with leased("cpu"), leased("cpu") as held:
        own(runtime).rename(runtime / "elsewhere")

    assert held.shared()  # it was met before


def test_the_first_free_device_is_taken_and_comes_back() -> None:
    candidates = ["cuda:0", "cuda:1"]
    with take_device(candidates) as one, take_device(candidates) as two, take_device(candidates) as three:
        assert (one, two, three) == ("cuda:0", "cuda:1", None)
    with take_device(candidates[::-1]) as again:
        assert again == "cuda:1"
    with take_device([]) as nothing:
        assert nothing is None


def test_a_device_that_somebody_leases_is_not_free(holder: Callable[..., Holder]) -> None:
    point = holder().take("cuda")

    with take_device(["cuda:0", "cuda:1"]) as taken:
        assert taken == "cuda:1"
    point.give()
    with take_device(["cuda:0", "cuda:1"]) as taken:
        assert taken == "cuda:0"


def test_a_point_on_a_taken_device_shares_it_with_nobody(holder: Callable[..., Holder]) -> None:
    with take_device(["cuda:1"]) as taken:
        assert taken == "cuda:1"
        assert not holder().take(taken).give()


TAKER = """
import sys
from batchlab.host.lease import take_device
with take_device(["cuda:0"]) as taken:
    print(taken, flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def taker(runtime: Path) -> Iterator[IO[str]]:
    """Another process that takes cuda:0 and says what it got, until it is killed."""
    environment = {"XDG_RUNTIME_DIR": str(runtime), "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        [sys.executable, "-c", TAKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as other:
        assert other.stdout is not None
        yield other.stdout
        other.kill()


def test_a_device_of_a_killed_taker_is_free(runtime: Path) -> None:
    with taker(runtime) as reported:
        assert reported.readline() == "cuda:0\n"
        with take_device(["cuda:0"]) as taken:
            assert taken is None
    with take_device(["cuda:0"]) as taken:
        assert taken == "cuda:0"


def test_a_lease_that_is_just_being_made_is_not_taken_for_dead(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its making and its lock the file looks like one of a dead holder: nobody may read it then."""
    with contextlib.ExitStack() as others:
        reported: list[IO[str]] = []
        create = lease.locks.create

        def create_slowly(path: Path) -> int:
            descriptor = create(path)
            reported.append(others.enter_context(taker(runtime)))
            select.select(reported, [], [], 0.5)  # as long as a taker may need who does not wait
            return descriptor

        monkeypatch.setattr("batchlab.host.locks.create", create_slowly)
        with leased("cuda:0"):
            assert reported[0].readline() == "None\n"


RACERS, ROUNDS, DEVICES = 8, 25, ["cuda:0", "cuda:1"]


def race(
    barrier: "multiprocessing.synchronize.Barrier", results: "multiprocessing.Queue[tuple[int, str | None]]"
) -> None:
    for number in range(ROUNDS):
        barrier.wait(60)
        with take_device(DEVICES) as taken:
            results.put((number, taken))
            barrier.wait(60)  # nobody lets go before everybody has tried


def test_of_eight_processes_two_get_the_two_devices_every_time() -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(RACERS), context.Queue()
    racers = [context.Process(target=race, args=(barrier, results)) for _ in range(RACERS)]
    for racer in racers:
        racer.start()
    taken: dict[int, list[str]] = {number: [] for number in range(ROUNDS)}
    for _ in range(RACERS * ROUNDS):
        number, device = results.get(timeout=60)
        if device is not None:
            taken[number].append(device)
    for racer in racers:
        racer.join(60)

    assert [racer.exitcode for racer in racers] == [0] * RACERS
    assert [sorted(devices) for devices in taken.values()] == [DEVICES] * ROUNDS


def meet(barrier: "multiprocessing.synchronize.Barrier", results: "multiprocessing.Queue[tuple[int, bool]]") -> None:
    for number in range(ROUNDS):
        barrier.wait(60)
        with leased("cpu") as held:
            barrier.wait(60)  # all hold it now
            results.put((number, held.shared()))


def test_eight_processes_that_begin_at_once_all_see_that_they_share() -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(RACERS), context.Queue()
    racers = [context.Process(target=meet, args=(barrier, results)) for _ in range(RACERS)]
    for racer in racers:
        racer.start()
    shared = [results.get(timeout=60)[1] for _ in range(RACERS * ROUNDS)]
    for racer in racers:
        racer.join(60)

    assert shared == [True] * RACERS * ROUNDS
