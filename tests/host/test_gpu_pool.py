"""Which GPUs the points of a sweep are given."""

import pytest
from fake_nvml import Card, FakeNvml, divided, four
from plain_defaults import configured

from batchlab.errors import BadRequest
from batchlab.host.gpu_pool import gpus_for, models, without_other_programs
from batchlab.host.neighbours import own_family
from batchlab.host.nvml import computing_on, read_driver


def given(api: FakeNvml, *, device: str = "cuda", jobs: int = 4, **environ: str) -> list[str]:
    config = configured(device=device)
    return [gpu.uuid[4:5] for gpu in gpus_for(config, jobs, environ=environ, driver=read_driver(api))]


def test_each_point_gets_a_gpu() -> None:
    assert given(four()) == list("abcd")
    assert given(four(), jobs=2) == list("abcd")  # whichever are free
    assert given(four(), jobs=2, CUDA_VISIBLE_DEVICES="GPU-d,GPU-b") == list("db")
    assert given(four(), jobs=2, CUDA_VISIBLE_DEVICES="3,1") == list("db")


def test_one_at_a_time_leaves_the_choice_to_cuda() -> None:
    assert given(four(), jobs=1) == []


def test_one_at_a_time_gets_a_gpu_that_can_be_used_where_the_first_cannot() -> None:
    api = four("NVIDIA H200", "NVIDIA H200", "NVIDIA L4", "NVIDIA H200")
    api.cards[0].mode = 2

    assert given(api, jobs=1) == list("bd")  # and none of another model


def test_an_exclusive_gpu_is_usable_until_somebody_computes_on_it() -> None:
    api = four()
    for card in api.cards:
        card.mode = 3
    api.cards[1].pids = [41]

    assert given(api, jobs=3) == list("acd")


def test_gpus_of_one_model_are_preferred_where_there_are_enough() -> None:
    api = four("NVIDIA T4", "NVIDIA A100", "NVIDIA T4", "NVIDIA A100")

    assert given(api, jobs=2, CUDA_VISIBLE_DEVICES="GPU-b,GPU-a,GPU-c,GPU-d") == list("bd")
    assert given(api, jobs=4) == list("abcd")
    assert models(read_driver(api).gpus) == ["NVIDIA T4", "NVIDIA A100"]


def test_numbers_that_may_mean_one_model_or_another_are_refused() -> None:
    api = four("NVIDIA T4", "NVIDIA A100")

    with pytest.raises(BadRequest, match=r"set CUDA_DEVICE_ORDER=PCI_BUS_ID, or use their UUIDs"):
        given(api, jobs=2, CUDA_VISIBLE_DEVICES="0,1")
    assert given(api, jobs=2, CUDA_VISIBLE_DEVICES="0,1", CUDA_DEVICE_ORDER="PCI_BUS_ID") == list("ab")


@pytest.mark.parametrize(
    ("api", "device", "jobs", "there"),
    [
        (four(), "cuda", 5, "4 devices"),
        (FakeNvml([Card("GPU-a")]), "cuda", 2, "1 device"),
        (FakeNvml(), "cuda", 2, "0 devices"),
        (four(), "cuda:1", 2, "one"),
        (FakeNvml(starts=False), "cuda", 2, r"not counted here \(NVML Shared Library Not Found\)"),
    ],
)
def test_more_points_at_once_than_gpus_are_refused(api: FakeNvml, device: str, jobs: int, there: str) -> None:
    with pytest.raises(BadRequest, match=f"{jobs} GPUs, one for each point, but device={device} is {there} "):
        given(api, device=device, jobs=jobs)


def test_as_many_points_at_once_as_there_are_gpus_are_offered() -> None:
    with pytest.raises(BadRequest, match=r"device=cuda is 4 devices here: use jobs=4$"):
        given(four(), device="cuda", jobs=9)


def test_each_instance_of_a_divided_gpu_is_one_to_give() -> None:
    """CUDA shows one process the first alone, and each point is a process."""
    found = gpus_for(configured(device="cuda"), 2, environ={}, driver=read_driver(divided("MIG-1", "MIG-2")))

    assert [gpu.uuid for gpu in found] == ["MIG-1", "MIG-2"]


def test_a_gpu_that_another_program_uses_is_not_free_and_ones_own_family_is_no_other_program() -> None:
    api = four()
    api.cards[0].pids = [next(iter(own_family()))]
    api.cards[1].pids = [2**22 + 1]  # more than Linux numbers
    api.cards[2].pids = None
    gpus = read_driver(api).gpus

    free = without_other_programs(gpus, listed=lambda uuid: computing_on(uuid, api))

    assert [gpu.uuid[4] for gpu in free] == list("acd")
