"""The free memory of a device for a run."""

import torch
from simulated_device import simulated_cuda

from batchlab.training.devices.named import device_named

MIB = 2**20


def test_what_pytorch_keeps_for_its_next_tensors_is_free_to_this_process():
    """Otherwise a second configuration that the same process checks would find less memory than the first."""
    with simulated_cuda(total_bytes=256 * MIB):
        device = device_named("cuda")
        device.prepare(deterministic=False)
        before = device.free_bytes()
        held = torch.zeros(32 * MIB // 4).to(device.torch_device)
        during = device.free_bytes()
        del held
        after = device.free_bytes()
        device.empty_cache()

        assert before - during == 32 * MIB
        assert after == before == device.free_bytes()
