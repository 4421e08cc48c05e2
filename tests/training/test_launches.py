"""The number of operations for the data of a step on a GPU, where each is a launch: on fake CUDA tensors."""

import pytest
import torch
from aten_ops import Operations
from simulated_device import simulated_cuda
from torch._subclasses.fake_tensor import FakeTensorMode

from batchlab.data.images.augment import augmentation
from batchlab.training.data.batches import Batches
from batchlab.training.data.order import permutation
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.cuda import CudaDevice
from batchlab.training.devices.named import device_named

GIB = 2**30
CIFAR = 3 * 32 * 32 * 4 + 8  # bytes of an example and its label


class ManyBytes(CpuDevice):
    """A CPU device that gathers as much at once as a GPU."""

    gather_bytes = 32 * 2**20


@pytest.fixture
def fake():
    with FakeTensorMode():
        yield
    permutation.cache_clear()  # which would keep fake tensors


def operations_of_a_step(batch_size, steps, **requested):
    data = (torch.empty(50_000, 3, 32, 32, device="cuda:0"), torch.empty(50_000, dtype=torch.int64, device="cuda:0"))
    batches = Batches(
        data,
        micro_batch_sizes=[batch_size],
        seed=0,
        total=steps * batch_size,
        augment=augmentation(**requested),
        device=ManyBytes(),
    )
    with Operations() as operations:
        seen = [batch for (batch,) in batches]
    assert len(seen) == steps
    assert all(images.device.type == "cuda" for images, _ in seen)
    return operations.count / steps


@pytest.mark.parametrize(
    ("requested", "most"),
    [({"crop": 4, "flip": True}, 40), ({"crop": 4, "flip": True, "cutout": 16}, 55)],
    ids=["crop, flip", "crop, flip, cutout"],
)
def test_an_augmentation_takes_few_operations_however_many_numbers_it_draws(requested, most):
    augment, images, draws = augmentation(**requested), torch.zeros(8, 3, 32, 32), torch.arange(8)
    with Operations() as operations:
        augment((images,), draws)

    assert operations.count <= most  # 68 and 116, when each change drew its own


@pytest.mark.parametrize(("batch_size", "most"), [(8, 0.5), (64, 2), (256, 7)])
def test_gathering_and_augmenting_costs_a_step_next_to_no_launches(fake, batch_size, most):
    whole_pieces = 2 * (ManyBytes.gather_bytes // (batch_size * CIFAR))

    assert operations_of_a_step(batch_size, whole_pieces, crop=4, flip=True, cutout=16) <= most


def test_a_large_batch_is_gathered_alone(fake):
    assert 55 < operations_of_a_step(4096, 4, crop=4, flip=True, cutout=16) < 70


def test_a_gpu_gathers_32_mib_at_once_and_a_small_share_of_a_small_one(monkeypatch):
    for total, at_once in (
        (4 * GIB, 8 * 2**20),
        (8 * GIB, 16 * 2**20),
        (24 * GIB, 32 * 2**20),
        (141 * GIB, 32 * 2**20),
    ):
        monkeypatch.setattr(CudaDevice, "total_bytes", lambda device, total=total: total)
        assert CudaDevice(0).gather_bytes == at_once
    assert CpuDevice().gather_bytes == 96 * 2**10


@pytest.mark.parametrize("batch_size", [8, 4096])
def test_a_piece_is_released_before_the_next_is_gathered(batch_size):
    with simulated_cuda(total_bytes=24 * GIB) as cuda:
        device = device_named("cuda")
        device.prepare(deterministic=False)
        images = torch.zeros(6000, 3, 32, 32).to(device.torch_device)
        memory = cuda.gpus[0].memory
        held = memory.allocated
        steps = 3 * 4096 // batch_size
        batches = iter(
            Batches((images,), micro_batch_sizes=[batch_size], seed=0, total=steps * batch_size, device=device)
        )

        for _ in range(steps):
            next(batches)

        piece = max(batch_size * 12288, device.gather_bytes)
        assert piece * 0.9 < memory.peak_allocated - held < piece * 1.1
