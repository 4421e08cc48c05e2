"""The cost of a pause and the busy share of a device, on a simulated device with given kernel and launch times."""

import contextlib

import pytest
import torch
from plain_defaults import configured
from simulated_device import simulated_cuda
from torch import nn

from batchlab import Task
from batchlab.instruments.throughput import Throughput
from batchlab.training.clock.busy import busy_share_of
from batchlab.training.clock.meter import Meter
from batchlab.training.clock.pauses import QUICK_SECONDS, busy_share, pause_seconds
from batchlab.training.data.batches import Batches
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.named import device_named
from batchlab.training.devices.precision import Precision
from batchlab.training.state import RunState
from batchlab.training.updates.eager import Eager
from batchlab.worker import probe

KERNELS = 50  # per step


@contextlib.contextmanager
def steps_of(launch, kernel, kernels=KERNELS):
    """A step of equal kernels on a GPU, the GPU, and the simulated clock."""
    with simulated_cuda(launch_seconds=launch, kernel_seconds=kernel) as cuda:
        device = device_named("cuda")
        device.prepare(deterministic=False)
        x = torch.zeros(4).to(device.torch_device)

        def passes():
            for _ in range(kernels):
                x.add(1.0)

        yield passes, device, cuda.clock


@pytest.mark.parametrize(
    ("launch", "kernel", "share"), [(10e-6, 2e-6, 0.2), (10e-6, 5e-6, 0.5), (10e-6, 40e-6, 1.0), (10e-6, 10e-6, 1.0)]
)
def test_the_share_is_what_the_kernels_take_of_what_the_launches_take(launch, kernel, share):
    with steps_of(launch, kernel) as (passes, device, clock):
        assert busy_share(passes, device, clock) == pytest.approx(share, rel=1e-3)


@pytest.mark.parametrize(("launch", "kernel"), [(10e-6, 2e-6), (10e-6, 40e-6)], ids=["launch-bound", "device-bound"])
def test_a_pause_costs_what_one_step_between_two_takes_longer_than_one_of_many(launch, kernel):
    with steps_of(launch, kernel) as (passes, device, clock):
        found = pause_seconds(passes, device, clock)
    # By hand: many steps run at the speed of the slower of the two; a pause adds the wait for the first launch or the
    # last kernel.
    assert found == pytest.approx(min(launch, kernel), rel=1e-6)


def test_windows_of_one_step_and_of_ten_come_to_the_same_seconds_a_step():
    """The oracle is the clock without a pause: 400 steps between two drains."""
    seconds = {}
    for window in (1, 10, 400):
        with steps_of(10e-6, 14e-6, kernels=5) as (passes, device, clock):
            meter = Meter(peaks=device.peaks(), drain=device.drain, clock=clock)
            meter.pause_seconds = pause_seconds(passes, device, clock)
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
    with steps_of(10e-6, 14e-6, kernels=5) as (passes, device, clock):
        assert pause_seconds(passes, device, clock) / (5 * 14e-6) > 0.1


def test_the_share_is_not_known_where_the_host_waits_for_a_value():
    with steps_of(10e-6, 10e-6) as (_passes, device, clock):
        x = torch.zeros(4).to(device.torch_device)
        assert busy_share(lambda: x.add(1.0).sum().item(), device, clock) is None


def test_long_steps_are_not_repeated():
    calls = []
    with steps_of(10e-6, QUICK_SECONDS, kernels=1) as (passes, device, clock):
        assert pause_seconds(lambda: calls.append(passes()), device, clock) == 0
        assert len(calls) == 1
        assert busy_share(lambda: calls.append(passes()), device, clock) == pytest.approx(1.0, rel=1e-3)
    assert len(calls) == 4


def test_on_the_cpu_nothing_is_passed_and_nothing_known():
    assert pause_seconds(lambda: pytest.fail("passed"), CpuDevice()) == 0.0
    assert busy_share(lambda: pytest.fail("passed"), CpuDevice()) is None


@contextlib.contextmanager
def run_of(kernel_seconds, make_optimizer=torch.optim.SGD):
    """A run on a GPU whose launches take 10 us."""
    with simulated_cuda(launch_seconds=10e-6, kernel_seconds=kernel_seconds) as cuda:
        device = device_named("cuda")
        device.prepare(deterministic=False)
        data = tuple(t.to(device.torch_device) for t in (torch.randn(16, 3), torch.randint(2, (16,))))
        torch.manual_seed(0)
        model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 2)).to(device.torch_device)
        optimizer = make_optimizer(model.parameters(), lr=0.1)
        task = Task.classification(data, data)
        meter = Meter(peaks=device.peaks(), drain=device.drain, clock=cuda.clock)
        yield cuda, RunState(model, optimizer, task, data, data, device, Precision("fp32", device), meter, budget=160)


def test_a_share_that_does_not_fit_does_not_affect_the_rest_of_the_run(monkeypatch):
    """Its passes need two copies of the gradients."""

    def lacks(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 MiB")

    monkeypatch.setattr("batchlab.instruments.throughput.busy_share_of", lacks)
    with run_of(5e-6) as (_, state):
        noted = list[str]()
        state.note = noted.append
        throughput = Throughput(log_every=16, micro_batch_size=4)
        for _ in range(8):
            state.step, state.examples = state.step + 1, state.examples + 16
            state.meter.start()
            (state.train[0] + 1).sum()
            state.meter.stop()
            list(throughput.measure(state))
        concluded = [m.name for m in throughput.conclude(state)]
    assert concluded == ["speed/examples_per_second", "speed/seconds_per_step"]
    assert noted == ["speed/device_busy_share is not measured: its passes do not fit in memory"]


def test_find_measures_the_share_in_the_precision_that_it_times():
    entered = []

    class RecordedPrecision(Precision):
        @contextlib.contextmanager
        def training(self):
            entered.append("in")
            yield
            entered.append("out")

    with run_of(5e-6) as (cuda, state):
        state.precision = RecordedPrecision("fp32", state.device)
        cuda.gpus[0].before_kernel = lambda _: entered.append("kernel")
        share = probe._busy(configured(device="cuda"), probe._Course(state=state), 4, cuda.clock)

    assert share == pytest.approx(0.5, rel=0.1)
    assert (entered[0], entered[-1], set(entered[1:-1])) == ("in", "out", {"kernel"})


def test_finding_the_pace_and_the_share_leaves_no_trace():
    with run_of(5e-6) as (_, state):
        step = Eager(state.losses, state.optimizer)
        batches = Batches(state.train, micro_batch_sizes=[4, 4], seed=0, total=16, device=state.device)
        before = [t.clone() for t in state.model.state_dict().values()]
        random = torch.get_rng_state()
        step.rehearse(batches.first, state.device)
        assert busy_share_of(state, 4, state.meter.clock) == pytest.approx(0.5, rel=0.1)
        after = list(state.model.state_dict().values())
    assert all(map(torch.equal, before, after))
    assert torch.equal(random, torch.get_rng_state())
    assert all(p.grad is None for p in state.model.parameters())
    assert not state.optimizer.state


class Heavy(torch.optim.SGD):
    """An update that takes most of the device's time, like Adam's for a large model at a small batch."""

    def step(self, closure=None):
        heavy.append(1)
        super().step(closure)
        heavy.clear()


heavy: list[int] = []


def test_a_heavy_update_does_not_make_a_run_look_launch_bound():
    # The passes keep the device busy; their share of the seconds of whole steps would be below a half.
    with run_of(lambda operator, result: 2e-3 if heavy else 20e-6, Heavy) as (_cuda, state):
        throughput = Throughput(log_every=16, micro_batch_size=16)
        step = Eager(state.losses, state.optimizer)
        for micro_batches in Batches(state.train, micro_batch_sizes=[16], seed=0, total=160, device=state.device):
            state.meter.start()
            step(micro_batches)
            state.step, state.examples = state.step + 1, state.examples + 16
            state.meter.stop()
            list(throughput.measure(state))
        message = {m.name: m.value for m in throughput.conclude(state)}
    assert message["speed/seconds_per_step"] > 4e-3
    assert message["speed/device_busy_share"] == pytest.approx(1.0)


def test_the_share_is_that_of_a_gpu_at_work_and_not_at_its_idle_clock():
    slow = [10]  # times slower at the start of the run
    with run_of(lambda operator, result: 3e-6 * slow[0]) as (_cuda, state):
        throughput = Throughput(log_every=16, micro_batch_size=16)
        step = Eager(state.losses, state.optimizer)
        state.meter.start()
        for micro_batches in Batches(state.train, micro_batch_sizes=[16], seed=0, total=160, device=state.device):
            step(micro_batches)
            state.step, state.examples = state.step + 1, state.examples + 16
            slow[0] = 1
        state.meter.stop()
        list(throughput.measure(state))
        message = {m.name: m.value for m in throughput.conclude(state)}
    assert message["speed/device_busy_share"] == pytest.approx(0.3, rel=0.05)
