"""Augmentation on CUDA: the bits of the CPU, without a wait for the device."""

import os

import pytest
import torch

from batchlab import uniform
from batchlab.data.images.augment import augmentation
from batchlab.training.devices.cuda import visible_devices

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif("BATCHLAB_TESTS_CUDA" in os.environ, reason="a simulated device has no kernels of its own"),
    pytest.mark.skipif(not visible_devices(), reason="needs CUDA, and PyTorch finds no CUDA device here"),
]


def test_numbers_are_those_of_the_cpu():
    draws = torch.randint(-(2**62), 2**62, (4096,), generator=torch.Generator().manual_seed(0))

    assert torch.equal(uniform(draws.cuda(), "crop", (7,)).cpu(), uniform(draws, "crop", (7,)))


def test_images_are_changed_as_on_the_cpu_and_the_host_does_not_wait():
    augment = augmentation(crop=4, flip=True, cutout=16)
    images, draws = torch.randn(256, 3, 32, 32), torch.arange(256)
    expected = augment((images, draws), draws)[0]
    there = (images.cuda(), draws.cuda())
    augment(there, there[1])

    torch.cuda.set_sync_debug_mode("error")
    try:
        found = augment(there, there[1])[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")

    assert torch.equal(found.cpu(), expected)
