"""Which GPUs CUDA shows, against PyTorch's own reading of the same variables."""

import pytest
import torch
from fake_nvml import FakeNvml, divided, four

from batchlab.host.nvml import Driver, read_driver
from batchlab.host.visible import Visible, entries, visible

TEXTS = (
    *("", "0", "1,0", "0,-1,1", "-1", "0,0", "NoDevFiles", "1gpu2,2ampere", " 2 , 3"),
    *("+1", "0,,1", "9", "0,9,1", "x,0", "GPU-a", "GPU-a0000000,GPU-b", "GPU-a,GPU-a0"),
    *("GPU-", "GPU-z,GPU-a", "GPU-a,GPU-z,GPU-b", "GPU-a,1", "GPU-a, GPU-b"),
    *("MIG-1,MIG-2", "MIG-1,MIG-1"),
)


def read(api: FakeNvml) -> Driver:
    driver = read_driver(api)
    assert isinstance(driver, Driver)
    return driver


def uuids(found: Visible) -> list[str]:
    return [gpu.uuid for gpu in found.devices]


@pytest.mark.parametrize("text", TEXTS)
def test_the_variable_is_read_as_pytorch_reads_it(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)

    assert entries(text) == torch.cuda._parse_visible_devices()


@pytest.mark.parametrize("text", [text for text in TEXTS if "MIG" not in text])
def test_the_devices_are_as_many_as_pytorch_would_count(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over PyTorch's own counting by NVML, of a machine with four GPUs."""
    driver = read(four())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)
    monkeypatch.setattr(torch.cuda, "_raw_device_count_nvml", lambda: 4)
    monkeypatch.setattr(torch.cuda, "_raw_device_uuid_nvml", lambda: [gpu.uuid for gpu in driver.gpus])

    assert len(visible(driver, {"CUDA_VISIBLE_DEVICES": text}).devices) == torch.cuda._device_count_nvml()


@pytest.mark.parametrize(
    ("environ", "seen", "sure"),
    [
        ({}, "abcd", False),  # CUDA puts the fastest first, and says nothing of the rest
        ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, "abcd", True),
        ({"CUDA_VISIBLE_DEVICES": "2,0"}, "ca", False),
        ({"CUDA_VISIBLE_DEVICES": "2,0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, "ca", True),
        ({"CUDA_VISIBLE_DEVICES": "GPU-c,GPU-a"}, "ca", True),
    ],
)
def test_an_order_is_sure_where_it_is_requested(environ: dict[str, str], seen: str, sure: bool) -> None:
    found = visible(read(four()), environ)

    assert [uuid[4] for uuid in uuids(found)] == list(seen)
    assert found.sure is sure


def test_one_gpu_needs_no_order() -> None:
    assert visible(read(FakeNvml(four().cards[:1])), {"CUDA_VISIBLE_DEVICES": "0"}).sure


def test_a_gpu_that_the_batch_system_keeps_from_this_job_is_not_counted() -> None:
    api = four()
    api.cards[0].denied = True

    assert [uuid[4] for uuid in uuids(visible(read(api), {"CUDA_VISIBLE_DEVICES": "0"}))] == ["b"]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (None, ["MIG-1"]),  # CUDA shows the first instance alone
        ("0", ["MIG-1"]),
        ("MIG-2", ["MIG-2"]),
        ("MIG-2,MIG-1", ["MIG-2"]),
        ("MIG-9", []),
        ("", []),
    ],
)
def test_of_a_divided_gpu_cuda_shows_one_instance(text: str | None, seen: list[str]) -> None:
    environ = {} if text is None else {"CUDA_VISIBLE_DEVICES": text}

    assert uuids(visible(read(divided("MIG-1", "MIG-2")), environ)) == seen


def test_next_to_an_instance_no_whole_gpu_is_shown() -> None:
    api = FakeNvml([*four().cards[1:], *divided("MIG-1").cards])

    assert uuids(visible(read(api), {})) == ["MIG-1"]


def test_a_divided_gpu_without_an_instance_says_so() -> None:
    found = visible(read(divided()), {})

    assert found.devices == ()
    assert found.why_none == "NVIDIA H200 is in MIG mode and has no instance"
