"""A GPU has one lease, however a process calls it, and other programs on it are seen."""

import contextlib
import os
from pathlib import Path

import pytest
from fake_nvml import FakeNvml, four

from batchlab.host import lease
from batchlab.host.lease import leased, take_device, uuid_of

FOREIGN = 2**22 + 1  # more than Linux numbers processes


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """Four GPUs, a folder of leases of the test's own, and nothing reported yet."""
    api = four()
    monkeypatch.setitem(__import__("sys").modules, "pynvml", api)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    lease.say_once.cache_clear()
    return api


@pytest.mark.parametrize(
    ("one", "visible", "other", "visible_to_it", "shared"),
    [
        ("cuda", "GPU-a", "cuda", "GPU-b", False),  # both call theirs cuda, as two jobs of a node do
        ("cuda", "GPU-b", "cuda:1", None, True),
        ("cuda", "2", "cuda:1", "0,2", True),
        ("cuda", "GPU-c", "cuda", "2", True),
        ("cuda:0", None, "cuda:3", None, False),
    ],
)
def test_a_gpu_is_the_same_by_index_by_uuid_and_in_any_order(
    one: str, visible: str | None, other: str, visible_to_it: str | None, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_seen(value: str | None) -> None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if value is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)

    as_seen(visible)
    with leased(one) as first:
        as_seen(visible_to_it)
        with leased(other) as second:
            assert (first.shared(), second.shared()) == (shared, shared)


def test_two_jobs_whose_only_gpu_is_0_have_a_lease_each(machine: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Slurm gives them: each job may open its own GPU alone, and counts from 0."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    machine.cards[0].denied = True
    with leased("cuda") as first:
        machine.cards[0].denied, machine.cards[1].denied = False, True
        with leased("cuda") as second:
            assert (first.shared(), second.shared()) == (False, False)
        machine.cards[0].denied, machine.cards[1].denied = True, False
        with leased("cuda") as third:
            assert (first.shared(), third.shared()) == (True, True)


def test_a_gpu_is_not_guessed_where_its_order_is_cudas_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_DEVICE_ORDER")

    assert [uuid_of(device) for device in ("cuda", "cuda:1", "cpu")] == [None, None, None]
    with leased("cuda", "GPU-b0000000") as held:  # PyTorch knows it
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-b")
        with leased("cuda") as other:
            assert (held.shared(), other.shared()) == (True, True)


def test_another_users_program_is_company(machine: FakeNvml) -> None:
    machine.cards[0].pids = [FOREIGN]
    with leased("cuda") as held:
        machine.cards[0].pids = [os.getpid()]
        assert held.shared()
    with leased("cuda") as held:
        assert not held.shared()
        machine.cards[0].pids = [os.getpid(), FOREIGN]  # it came meanwhile
    assert held.shared()


def test_a_program_on_another_gpu_is_none(machine: FakeNvml) -> None:
    machine.cards[1].pids = [FOREIGN]
    machine.cards[0].pids = [os.getpid()]

    with leased("cuda") as held:
        assert not held.shared()
    assert held.unknown == ""


@pytest.mark.parametrize("silence", ["no driver", "no list"])
def test_what_the_driver_does_not_say_is_reported_once(
    silence: str, machine: FakeNvml, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.starts = silence != "no driver"
    machine.cards[0].pids = None

    for _ in range(2):
        with leased("cuda") as held:
            assert not held.shared()
        assert held.unknown.startswith("whether other programs use cuda at the same time is not known: ")

    assert capsys.readouterr().err.splitlines() == [held.unknown]


def test_two_sweeps_over_four_gpus_share_none() -> None:
    uuids = [card.uuid for card in four().cards]
    with contextlib.ExitStack() as stack:
        one = [stack.enter_context(take_device(uuids)) for _ in range(2)]
        other = [stack.enter_context(take_device(uuids[::-1])) for _ in range(2)]

        assert sorted(filter(None, [*one, *other])) == uuids
        assert stack.enter_context(take_device(uuids)) is None
