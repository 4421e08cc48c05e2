"""What is read of the driver, and what is made of its refusals."""

from fake_nvml import GIB, Card, FakeNvml, divided, four

from batchlab.host.nvml import Driver, Gpu, computing_on, process_bytes, read_driver, used_bytes
from batchlab.records import Unknown


def test_a_machine_without_a_driver_says_why() -> None:
    assert read_driver(FakeNvml(starts=False)) == Unknown("NVML Shared Library Not Found")


def test_this_machine_can_be_queried() -> None:
    """Over the real pynvml, whether or not there is a GPU."""
    assert isinstance(read_driver(), Driver | Unknown)


def test_everything_of_a_gpu_is_read() -> None:
    card = Card("GPU-a", "NVIDIA L4", total=24 * GIB, used=3 * GIB, mode=3, pids=[9, 7])

    driver = read_driver(FakeNvml([card], cuda=12040))

    expected = Gpu("GPU-a", "NVIDIA L4", 24 * GIB, 3 * GIB, "exclusive", (7, 9))
    assert driver == Driver("595.71.05", (12, 4), (expected,))


def test_a_newer_libcuda_next_to_the_driver_counts() -> None:
    driver = read_driver(FakeNvml([Card("GPU-a")], cuda=12040, newer_libcuda=13000))

    assert isinstance(driver, Driver)
    assert driver.cuda == (13, 0)


def test_what_is_refused_is_not_known() -> None:
    driver = read_driver(FakeNvml([Card("GPU-a", pids=None)], cuda=None))

    assert isinstance(driver, Driver)
    assert driver.cuda is None
    assert driver.gpus[0].processes is None


def test_memory_is_found_by_pytorchs_uuid_of_a_gpu_or_an_instance() -> None:
    api = four()
    api.cards[1].used = 7 * GIB

    assert used_bytes("b0000000", api) == used_bytes("GPU-b0000000", api) == 7 * GIB
    assert used_bytes("1234", divided("MIG-1234")) == GIB // 2
    assert used_bytes("9", api) is None
    assert used_bytes("b0000000", FakeNvml(starts=False)) is None


def test_the_processes_of_a_gpu_are_its_own() -> None:
    api = four()
    api.cards[2].pids = [41, 42]
    api.cards[3].pids = None

    assert [computing_on(card.uuid, api) for card in api.cards] == [set(), set(), {41, 42}, None]


def test_what_a_process_has_on_a_gpu_is_its_own() -> None:
    api = four()
    api.cards[2].pids, api.cards[2].used_by = [41, 42], {41: GIB}

    assert [process_bytes(api.cards[2].uuid, pid, api) for pid in (41, 42, 43)] == [GIB, None, None]
    assert process_bytes("GPU-none", 41, api) is None


def test_in_a_container_a_process_that_is_alone_is_meant_whatever_its_number() -> None:
    api = four()
    api.cards[2].pids, api.cards[2].used_by = [4711], {4711: GIB}

    assert process_bytes(api.cards[2].uuid, 41, api) == GIB
