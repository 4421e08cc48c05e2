"""The simulated CUDA device behaves like CUDA, as far as other tests rely on it."""

import random

import pytest
import torch
from caching_allocator import MIB, CachingAllocator
from faked_cuda import faked_cuda
from simulated_device import simulated_cuda

from batchlab.errors import BadRequest
from batchlab.training.devices.named import device_named


@pytest.mark.parametrize(
    ("asked", "allocated", "reserved"),
    [  # c10/cuda/CUDACachingAllocator.cpp: kMinBlockSize, kSmallBuffer, kLargeBuffer, kMinLargeAlloc, kRoundLarge
        (1, 512, 2 * MIB),
        (513, 1024, 2 * MIB),
        (MIB, MIB, 2 * MIB),
        (MIB + 1, MIB + 512, 20 * MIB),
        (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB, 10 * MIB),
        (20 * MIB + 1, 20 * MIB + 512, 22 * MIB),  # the rest is more than 1 MiB, and is split off
        (21 * MIB, 22 * MIB, 22 * MIB),  # the rest is at most 1 MiB, and is not split off
    ],
)
def test_sizes_are_rounded_and_segments_taken_as_the_caching_allocator_does(asked, allocated, reserved):
    memory = CachingAllocator(total=2**30)

    memory.allocate(asked)

    assert memory.reserved == reserved
    assert memory.allocated == allocated


def test_freed_memory_is_kept_joined_and_given_back_only_where_a_segment_is_empty():
    memory = CachingAllocator(total=2**30)
    three = [memory.allocate(5 * MIB) for _ in range(3)]
    assert (memory.allocated, memory.reserved, memory.segments) == (15 * MIB, 20 * MIB, 1)

    memory.release(three[0])
    memory.release(three[1])
    eight = memory.allocate(8 * MIB)  # fits only after the two are merged
    memory.empty_cache()
    assert (memory.allocated, memory.reserved, memory.segments) == (13 * MIB, 20 * MIB, 1)

    memory.release(eight)
    memory.release(three[2])
    assert (memory.allocated, memory.reserved, memory.peak_allocated) == (0, 20 * MIB, 15 * MIB)
    memory.empty_cache()
    assert (memory.reserved, memory.peak_reserved) == (0, 20 * MIB)
    memory.reset_peaks()
    assert (memory.peak_allocated, memory.peak_reserved) == (0, 0)


def test_no_byte_is_lost_or_handed_out_twice():
    draw = random.Random(0)
    memory = CachingAllocator(total=2**40)
    held = {}
    for number in range(3000):
        if held and draw.random() < 0.5:
            memory.release(held.pop(draw.choice(list(held))))
        else:
            held[number] = memory.allocate(int(2 ** draw.uniform(0, 25)))
        assert memory.allocated == sum(block.size for block in held.values())
        assert all(block.size >= block.requested and not block.free for block in held.values())
        assert memory.allocated <= memory.reserved
    for block in held.values():
        memory.release(block)
    memory.empty_cache()
    assert (memory.allocated, memory.reserved, memory.segments) == (0, 0, 0)


def test_before_memory_runs_out_the_cache_is_given_back_and_the_text_is_cudas():
    memory = CachingAllocator(total=100 * MIB, taken=20 * MIB)
    memory.allowed = 60 * MIB
    memory.release(memory.allocate(40 * MIB))

    kept = memory.allocate(50 * MIB)
    assert (memory.retries, memory.ooms, memory.reserved) == (1, 0, 50 * MIB)
    with pytest.raises(torch.OutOfMemoryError) as raised:
        memory.allocate(11 * MIB)

    assert str(raised.value).startswith(
        "CUDA out of memory. Tried to allocate 12.00 MiB. GPU 0 has a total capacity of 100.00 MiB of which 30.00 MiB "
        "is free. 60.00 MiB allowed; Of the allocated memory 50.00 MiB is allocated by PyTorch, and 0 bytes is "
        "reserved by PyTorch but unallocated."
    )
    assert (memory.retries, memory.ooms) == (2, 1)
    memory.release(kept)
    memory.allowed = None
    memory.allocate(80 * MIB)


@pytest.fixture
def gpu():
    with simulated_cuda(total_bytes=256 * MIB) as cuda:
        device_named("cuda").prepare(deterministic=False)
        yield cuda.gpus[0]


def test_what_is_moved_or_computed_on_the_device_takes_its_memory_and_views_and_the_host_take_none(gpu):
    device = device_named("cuda")
    on_host = torch.ones(1000)
    (on_host + 1).sum()
    assert gpu.memory.allocated == 0

    moved = on_host.to(device.torch_device)
    again = moved.to(device.torch_device)
    view = moved.view(10, 100)[2:]
    assert gpu.memory.allocated == 4096
    assert device.holds(moved)
    assert device.holds(view)
    assert not device.holds(on_host)
    result = view * 2
    made = torch.zeros(128, dtype=torch.float64, device=device.torch_device)
    assert gpu.memory.allocated == 4096 + 3584 + 1024

    del moved, again, result
    assert gpu.memory.allocated == 4096 + 1024  # the view keeps the storage
    del view, made
    assert gpu.memory.allocated == 0
    assert torch.equal(on_host, torch.ones(1000))


def test_a_step_takes_weights_gradients_and_state_and_gives_activations_back(gpu):
    model = torch.nn.Linear(255, 128).to(device_named("cuda").torch_device)  # 255 x 128 weights, 128 biases
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    weights = 4 * 255 * 128 + 4 * 128
    assert gpu.memory.allocated == weights

    losses = model(torch.zeros(64, 255).to(device_named("cuda").torch_device)).relu().sum(dim=1)
    assert gpu.memory.allocated > weights + 4 * 64 * 255
    losses.sum().backward()
    optimizer.step()
    del losses

    assert gpu.memory.allocated == 3 * weights
    assert gpu.memory.peak_allocated > 3 * weights


def test_memory_that_runs_out_in_a_backward_pass_is_an_error_of_torch_there(gpu):
    device = device_named("cuda")
    inputs = torch.zeros(2 * MIB, requires_grad=True)  # 8 MiB
    with device.limited(12 * MIB), pytest.raises(torch.OutOfMemoryError, match=r"Tried to allocate 20\.00 MiB"):
        inputs.to(device.torch_device).square()
    with device.limited(30 * MIB):
        out = inputs.to(device.torch_device).square()
        with pytest.raises(torch.OutOfMemoryError):
            out.sum().backward()
    out.sum().backward()


def test_the_limit_is_read_from_the_driver_and_one_beyond_what_is_free_is_refused(gpu):
    with pytest.raises(BadRequest, match=r"cuda:0 has 0\.2 GiB free"):
        device_named("cuda").limited(2**30).__enter__()


def test_the_host_runs_ahead_until_it_needs_a_value():
    with simulated_cuda(launch_seconds=1.0, kernel_seconds=10.0) as cuda:
        device = device_named("cuda")
        device.prepare(deterministic=False)
        x = torch.zeros(4).to(device.torch_device)
        x.view(2, 2)
        y = x + 1
        assert (cuda.clock(), cuda.gpus[0].kernels, cuda.gpus[0].busy_seconds) == (2.0, 2, 20.0)

        device.drain()
        assert (cuda.clock(), cuda.gpus[0].drains) == (21.0, 1)
        device.drain()
        assert cuda.clock() == 21.0
        with cuda.forbidding_waits():
            y + 1
        with pytest.raises(AssertionError, match="_local_scalar_dense"), cuda.forbidding_waits():
            y[0].item()
        assert cuda.clock() == 32.0
        for wait in (lambda: y[y > 0], lambda: torch.zeros(4).copy_(y), lambda: bool((y > 0).all()), y.nonzero):
            with pytest.raises(AssertionError, match="waited"), cuda.forbidding_waits():
                wait()


def test_a_broken_context_raises_at_any_call(gpu):
    device = device_named("cuda")
    x = torch.zeros(4).to(device.torch_device)
    gpu.broken = "device-side assert triggered"

    for use in (lambda: x + 1, lambda: x.sum().item(), device.drain, device.free_bytes):
        with pytest.raises(torch.AcceleratorError, match="CUDA error: device-side assert triggered"):
            use()
    torch.zeros(4) + 1


def test_page_locked_memory_can_be_allocated_and_recognised(gpu):
    assert torch.zeros(3).pin_memory().is_pinned()
    assert torch.empty(3, pin_memory=True).is_pinned()
    assert not torch.zeros(3).is_pinned()


def test_two_gpus_have_memory_and_random_streams_of_their_own():
    with simulated_cuda(2) as cuda:
        first, second = device_named("cuda:0"), device_named("cuda:1")
        second.prepare(deterministic=False)
        second.seed(5)
        torch.zeros(1000).to(second.torch_device)
        x = torch.zeros(1000).to(second.torch_device)

        assert device_named("cuda:1").holds(x)
        assert [gpu.memory.allocated for gpu in cuda.gpus] == [0, 4096]
        assert not torch.equal(first.random_state(), second.random_state())
        assert str(second) == "cuda:1"


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["A", "B", "C"]),
        ("2,0", ["C", "A"]),
        ("GPU-00000000-0000-4000-8000-000000000001", ["B"]),
        ("0,-1,1", ["A"]),
        ("NoDevFiles", []),
    ],
)
def test_the_faked_driver_shows_what_the_environment_lets_it(visible, names, monkeypatch):
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with faked_cuda(3, name=["A", "B", "C"]):
        assert torch.cuda.device_count() == len(names)
        assert [torch.cuda.get_device_name(index) for index in range(len(names))] == names


def test_torchs_own_checks_run_over_the_faked_driver_and_end_with_it():
    before = torch.cuda.is_available()
    with faked_cuda(1):
        assert torch.cuda.is_available()
        with pytest.raises(ValueError, match="with a specified index"):
            torch.cuda.set_device(torch.device("cuda"))
        with pytest.raises(TypeError, match="must be `float`"):
            torch.cuda.set_per_process_memory_fraction(1, 0)
        with pytest.raises(torch.AcceleratorError, match="invalid device ordinal"):
            torch.cuda.set_device(1)
    assert torch.cuda.is_available() is before
