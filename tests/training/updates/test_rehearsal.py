"""The rehearsal of the first update: with a copy of the optimizer and other parameters, and without a trace."""

import copy

import pytest
import torch
from simulated_device import simulated_cuda

from batchlab import Task
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.named import device_named
from batchlab.training.devices.precision import Precision
from batchlab.training.losses import Losses
from batchlab.training.updates.eager import Eager
from batchlab.training.updates.rehearsal import rehearse_update

MIB = 2**20
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, foreach=True, amsgrad=True),
    "muon": lambda p: torch.optim.Muon([q for q in p if q.dim() == 2], lr=0.1),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.9),
}


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 40), torch.nn.Tanh(), torch.nn.Linear(40, 3))


def step_of(model, optimizer, *, precision="fp32", device=None, clip_norm=None):
    device = device or CpuDevice()
    data = (torch.randn(8, 6), torch.randint(0, 3, (8,)))
    losses = Losses(model, Task.classification(data, data), Precision(precision, device))
    return Eager(losses, optimizer, clip_norm), data


class Noted(torch.optim.SGD):
    """Records the weights at each of its steps."""

    seen: list[list[torch.Tensor]] = []  # noqa: RUF012 - of all of them together
    states: list[int] = []  # noqa: RUF012 - parameters with a state, before it

    def step(self, closure=None):
        type(self).seen.append([p for group in self.param_groups for p in group["params"]])
        type(self).states.append(len(self.state))
        torch.rand(3)
        return super().step(closure)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_leaves_no_trace_and_the_first_step_makes_the_state(name, precision):
    model = network()
    optimizer = OPTIMIZERS[name](list(model.parameters()))
    step, data = step_of(model, optimizer, precision=precision, clip_norm=1.0)
    weights, settings = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    stream, scaler = torch.get_rng_state(), step.precision.scaler

    step.rehearse_update(CpuDevice())
    assert step.precision.scaler is scaler
    assert scaler is None or scaler._scale is None  # created when the first loss is scaled
    step.rehearse(lambda: [data], CpuDevice())

    assert not optimizer.state
    assert optimizer.state_dict() == settings
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), stream)

    unrehearsed = network()
    other, _ = step_of(unrehearsed, OPTIMIZERS[name](list(unrehearsed.parameters())), precision=precision, clip_norm=1)
    for _ in range(3):
        step([data]), other([data])
    assert optimizer.state
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), unrehearsed.parameters(), strict=True))
    assert step.precision.loss_scale() == other.precision.loss_scale()


def test_a_step_is_made_of_small_parameters_of_the_same_number_type_and_axes():
    model = network().bfloat16()
    optimizer = Noted(model.parameters(), lr=0.1)
    counted = []
    optimizer.register_step_post_hook(lambda *_: counted.append(1))
    step, _ = step_of(model, optimizer)
    Noted.seen.clear()
    stream = torch.get_rng_state()

    step.rehearse_update(CpuDevice())

    ((*seen,),) = Noted.seen
    assert [(tuple(p.shape), p.dtype) for p in seen] == [
        (shape, torch.bfloat16) for shape in [(2, 2), (2,), (2, 2), (2,)]
    ]
    assert not counted
    assert torch.equal(torch.get_rng_state(), stream)


def test_for_a_resumed_run_no_state_is_copied_and_no_memory_is_reserved_twice():
    model = network()
    optimizer = Noted(model.parameters(), lr=0.1, momentum=0.9)
    step, data = step_of(model, optimizer)
    step([data])
    before = copy.deepcopy(optimizer.state_dict()["state"])
    Noted.states.clear()

    assert rehearse_update(optimizer, step.precision, None).state_like == ()

    assert Noted.states == [0]
    after = optimizer.state_dict()["state"]
    assert all(torch.equal(after[i]["momentum_buffer"], before[i]["momentum_buffer"]) for i in range(4))


def test_an_optimizer_that_cannot_be_rehearsed_is_left_to_its_first_step():
    class Slow(torch.optim.SGD):
        """Has its own tensor for each weight."""

        def __init__(self, params, lr):
            super().__init__(params, lr)
            self.slow = [p.detach().clone() for p in self.param_groups[0]["params"]]

        def step(self, closure=None):
            for slow, p in zip(self.slow, self.param_groups[0]["params"], strict=True):
                slow.lerp_(p.detach().reshape(slow.shape), 0.5)
            return super().step(closure)

    model = network()
    optimizer = Slow(model.parameters(), 0.1)
    before = copy.deepcopy(optimizer.slow)

    assert rehearse_update(optimizer, Precision("fp32", CpuDevice()), None).state_like == ()
    assert all(torch.equal(a, b) for a, b in zip(optimizer.slow, before, strict=True))


def test_memory_for_the_optimizers_state_is_reserved_before_the_first_steps():
    with simulated_cuda(total_bytes=4000 * MIB) as cuda:
        device = device_named("cuda")
        device.prepare(deterministic=False)
        model = torch.nn.Linear(2048, 2048, bias=False).to(device.torch_device)  # 16 MiB: no two share a segment
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)  # needs no temporary memory
        batch = (torch.randn(64, 2048).to(device.torch_device),)
        task = Task(train=batch, val=batch, loss=lambda outputs, batch: outputs.square().mean(1))
        step = Eager(Losses(model, task, Precision("fp32", device)), optimizer)

        step.rehearse_update(device)
        step.rehearse(lambda: [batch], device)
        memory = cuda.gpus[0].memory
        reserved, peak, held = memory.reserved, memory.peak_allocated, memory.allocated
        for _ in range(3):
            step([batch])

        memory = cuda.gpus[0].memory
        assert memory.reserved == reserved
        assert memory.allocated - held == 3 * 16 * MIB  # Adam's two moments, and the gradient
        assert memory.peak_allocated == peak
