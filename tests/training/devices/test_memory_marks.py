"""Memory marks of training, without measuring: on a simulated CUDA device and in this process."""

import contextlib

import pytest
import torch
from simulated_device import simulated_cuda

from batchlab.training.clock.meter import Meter
from batchlab.training.devices.named import device_named
from batchlab.training.devices.process_memory import ResidentPeak

MIB = 2**20
ALLOCATED, RESERVED = "memory/peak_allocated_bytes", "memory/peak_reserved_bytes"
GROWTH, RESIDENT = "memory/peak_growth_bytes", "memory/peak_resident_bytes"


@contextlib.contextmanager
def on_a_gpu():
    """The simulated GPU, a function that takes MiB of it, and a meter."""
    with simulated_cuda(total_bytes=4000 * MIB) as cuda:
        device = device_named("cuda")
        device.prepare(deterministic=False)

        def take(mib):
            return torch.empty(mib * MIB, dtype=torch.uint8, device=device.torch_device)

        yield cuda.gpus[0], take, Meter(peaks=device.peaks(), drain=device.drain)


def test_reserved_is_trainings_and_not_that_of_the_validation_before_it():
    with on_a_gpu() as (gpu, take, meter):
        weights = take(20)
        with meter.paused():  # the measurements at 0 examples
            take(1000)
        assert gpu.memory.reserved == 1020 * MIB
        meter.start(lambda: take(100))
        take(100)
        meter.stop()

        assert meter.peak_bytes[RESERVED] == 120 * MIB
        assert meter.peak_bytes[ALLOCATED] == 120 * MIB
        assert weights.nbytes == 20 * MIB


def test_growth_leaves_out_what_was_held_when_training_began():
    with on_a_gpu() as (_, take, meter):
        held = take(700), take(20)  # the sets, and the weights
        meter.start()
        state = take(40)  # the optimizer's, created during training
        take(100)
        meter.stop()

        assert meter.peak_bytes[GROWTH] == 140 * MIB
        assert meter.peak_bytes[ALLOCATED] == 860 * MIB
        assert len(held) == 2
        assert state.nbytes == 40 * MIB


def test_a_measurement_that_takes_more_does_not_raise_any_mark_then_or_later():
    with on_a_gpu() as (gpu, take, meter):
        meter.start()
        take(100)
        for _ in range(2):
            with meter.paused():
                take(1000)
            take(90)
        meter.stop()

        assert gpu.memory.reserved >= 1000 * MIB  # PyTorch caches it: training need not allocate its own again
        assert meter.peak_bytes == {ALLOCATED: 100 * MIB, RESERVED: 100 * MIB, GROWTH: 100 * MIB}


def test_reserved_rises_with_what_tensors_take_after_a_measurement_raised_it():
    with on_a_gpu() as (_, take, meter):
        meter.start()
        take(100)
        with meter.paused():
            take(1000)
        state = take(60)  # like the optimizer's, from the first step, in addition to the activations of the second
        take(100)
        with meter.paused():
            take(2000)
        take(100)
        meter.stop()

        assert meter.peak_bytes == {ALLOCATED: 160 * MIB, RESERVED: 160 * MIB, GROWTH: 160 * MIB}
        assert state.nbytes == 60 * MIB


def test_reserved_is_counted_again_where_a_measurement_gave_back_what_it_took():
    with on_a_gpu() as (_, take, meter):
        meter.start()
        take(100)
        for give_back in (False, True):
            with meter.paused():
                take(1000)
                if give_back:
                    torch.cuda.empty_cache()
        held = [take(9) for _ in range(12)]  # two per segment of 20 MiB
        meter.stop()

        assert meter.peak_bytes[ALLOCATED] == 108 * MIB
        assert meter.peak_bytes[RESERVED] == 120 * MIB
        assert len(held) == 12


def test_a_run_that_is_resumed_keeps_its_growth():
    with on_a_gpu() as (_, take, meter):
        meter.load_state_dict({"seconds": 1.0, "measuring_seconds": 0.0, "highest": {ALLOCATED: 90, GROWTH: 70}})
        state = take(40)  # restored before training begins, so the growth of this process would not include it
        meter.start()
        take(10)
        meter.stop()

        assert meter.peak_bytes[GROWTH] == 70
        assert meter.peak_bytes[ALLOCATED] == 50 * MIB
        assert state.nbytes == 40 * MIB


def test_a_run_of_an_older_checkpoint_has_no_growth_rather_than_a_wrong_one():
    with on_a_gpu() as (_, take, meter):
        meter.load_state_dict({"seconds": 1.0, "measuring_seconds": 0.0, "highest": {ALLOCATED: 90, RESERVED: 90}})
        meter.start()
        take(10)
        meter.stop()

        assert GROWTH not in meter.peak_bytes


def test_on_the_cpu_growth_is_that_of_the_process():
    before = torch.zeros(300 * MIB, dtype=torch.uint8)
    meter = Meter(peaks=ResidentPeak())
    meter.start()
    torch.zeros(200 * MIB, dtype=torch.uint8).add_(1)
    meter.stop()

    assert meter.peak_bytes[GROWTH] == pytest.approx(200 * MIB, rel=0.05)
    assert meter.peak_bytes[RESIDENT] == meter.peak_bytes[GROWTH]
    assert before.nbytes == 300 * MIB


def test_on_the_cpu_a_later_peak_of_training_is_seen_and_that_of_measurements_is_not():
    def take(mib):
        return torch.zeros(mib * MIB, dtype=torch.uint8).add_(1)

    meter = Meter(peaks=ResidentPeak())
    meter.start(lambda: take(100))
    kept = []
    for mib in (100, 300, 100):
        with meter.paused():
            take(600)
            kept.append(take(50))  # what a measurement leaves does not count as training's
        take(mib)
    meter.stop()

    assert meter.peak_bytes[RESIDENT] == pytest.approx(300 * MIB, rel=0.05)
    assert meter.peak_bytes[GROWTH] == meter.peak_bytes[RESIDENT]
    assert len(kept) == 3


def test_on_the_cpu_a_resumed_run_has_the_larger_of_its_peaks():
    def resumed(mib):
        meter = Meter(peaks=ResidentPeak())
        meter.load_state_dict({"seconds": 1.0, "measuring_seconds": 0.0, "highest": {RESIDENT: 90 * MIB}})
        meter.start()
        torch.zeros(mib * MIB, dtype=torch.uint8).add_(1)
        meter.stop()
        return meter.peak_bytes[RESIDENT]

    assert resumed(40) == 90 * MIB
    assert resumed(200) == pytest.approx(200 * MIB, rel=0.05)
