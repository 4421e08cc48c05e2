"""What a pause costs and how long a device works, on a device whose kernels and launches take what we say."""

import pytest
import torch
from simulated_device import simulated_cuda
from torch import nn

from batchlab import Task
from batchlab.training.batches import Batches
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.named import device_named
from batchlab.training.devices.precision import Precision
from batchlab.training.meter import Meter
from batchlab.training.pace import QUICK_SECONDS, pace_of
from batchlab.training.step import Step

KERNELS = 50  # of a step


def paced(cuda, kernel_seconds, kernels=KERNELS):
    """`pace_of` a step of equal kernels, on the simulated clock."""
    device = device_named("cuda")
    device.prepare(deterministic=False)
    x = torch.zeros(4).to(device.torch_device)

    def passes():
        for _ in range(kernels):
            x.add(1.0)

    return pace_of(passes, device, clock=cuda.clock)


@pytest.mark.parametrize(("launch", "kernel"), [(10e-6, 2e-6), (10e-6, 40e-6), (10e-6, 10e-6)], ids=str)
def test_the_device_is_busy_for_as_long_as_its_kernels_take(launch, kernel):
    with simulated_cuda(launch_seconds=launch, kernel_seconds=kernel) as cuda:
        found = paced(cuda, kernel)
    assert found.busy_seconds == pytest.approx(KERNELS * kernel, rel=1e-6)


@pytest.mark.parametrize(("launch", "kernel"), [(10e-6, 2e-6), (10e-6, 40e-6)], ids=["launch-bound", "device-bound"])
def test_a_pause_costs_what_one_step_between_two_takes_longer_than_one_of_many(launch, kernel):
    with simulated_cuda(launch_seconds=launch, kernel_seconds=kernel) as cuda:
        found = paced(cuda, kernel)
    # By hand: many steps go on at the pace of the slower of the two; at a pause the first launch or the last kernel
    # is waited for beside it.
    assert found.pause_seconds == pytest.approx(min(launch, kernel), rel=1e-6)


def test_windows_of_one_step_and_of_ten_come_to_the_same_seconds_a_step():
    """The oracle is the clock without a pause: 400 steps between two drains."""
    seconds = {}
    for window in (1, 10, 400):
        with simulated_cuda(launch_seconds=10e-6, kernel_seconds=14e-6) as cuda:
            device = device_named("cuda")
            device.prepare(deterministic=False)
            x = torch.zeros(4).to(device.torch_device)

            def passes(x=x):
                for _ in range(5):
                    x.add(1.0)

            meter = Meter(peaks=device.peaks(), drain=device.drain, clock=cuda.clock)
            meter.pause_seconds = pace_of(passes, device, clock=cuda.clock).pause_seconds
            meter.start()
            for step in range(400):
                passes()
                if (step + 1) % window == 0:
                    with meter.paused():
                        pass
            meter.stop()
            seconds[window] = meter.seconds
    assert seconds[1] == pytest.approx(seconds[400], rel=2e-3)
    assert seconds[10] == pytest.approx(seconds[400], rel=2e-3)


def test_without_the_correction_windows_of_one_step_would_look_slower():
    with simulated_cuda(launch_seconds=10e-6, kernel_seconds=14e-6) as cuda:
        found = paced(cuda, 14e-6, kernels=5)
    assert found.pause_seconds / (5 * 14e-6) > 0.1


def test_nothing_is_known_of_the_share_where_the_host_waits_for_a_value():
    with simulated_cuda(launch_seconds=10e-6, kernel_seconds=10e-6) as cuda:
        device = device_named("cuda")
        device.prepare(deterministic=False)
        x = torch.zeros(4).to(device.torch_device)
        found = pace_of(lambda: x.add(1.0).sum().item(), device, clock=cuda.clock)
    assert found.busy_seconds is None


def test_steps_that_take_long_are_not_passed_again_and_again():
    calls = []
    with simulated_cuda(launch_seconds=10e-6, kernel_seconds=QUICK_SECONDS) as cuda:
        device = device_named("cuda")
        device.prepare(deterministic=False)
        x = torch.zeros(4).to(device.torch_device)
        found = pace_of(lambda: calls.append(x.add(1.0)), device, clock=cuda.clock)
    assert len(calls) == 2
    assert found.pause_seconds == 0
    assert found.busy_seconds == pytest.approx(QUICK_SECONDS, rel=1e-6)


def test_on_the_cpu_nothing_is_passed_and_nothing_known():
    found = pace_of(lambda: pytest.fail("passed"), CpuDevice())
    assert (found.pause_seconds, found.busy_seconds) == (0.0, None)


def test_finding_the_pace_leaves_no_trace_in_the_model():
    with simulated_cuda(launch_seconds=10e-6, kernel_seconds=5e-6):
        device = device_named("cuda")
        device.prepare(deterministic=False)
        data = tuple(t.to(device.torch_device) for t in (torch.randn(16, 3), torch.randint(2, (16,))))
        model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 2)).to(device.torch_device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        task = Task.classification(data, data)
        step = Step(model, optimizer, task, Precision("fp32", device))
        batches = Batches(data, micro_batch_sizes=[4, 4], seed=0, total=16, device=device)
        before = [t.clone() for t in model.state_dict().values()]
        random = torch.get_rng_state()
        step.rehearse(batches.first, device)
        after = list(model.state_dict().values())
    assert all(map(torch.equal, before, after))
    assert torch.equal(random, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())
