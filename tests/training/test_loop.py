"""The loop: when it measures, what it times, and that it equals the plain textbook loop."""

import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from batchlab import Task
from batchlab.instruments import Instrument
from batchlab.training.clock.meter import Meter
from batchlab.training.data.batches import Batches
from batchlab.training.data.order import row
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.precision import Precision
from batchlab.training.loop import Agenda, train
from batchlab.training.state import RunState
from batchlab.training.updates.eager import Eager

CPU = CpuDevice()


class NoMemory:
    def read(self):
        return {}

    def reset(self):
        pass

    def pause(self):
        pass


class At(Instrument):
    """Records when it is called to measure."""

    def __init__(self, every):
        self.every = every
        self.seen = []

    def measure(self, state):
        self.seen.append(state.examples)
        yield state.measurement("at/examples", state.examples)


def run_state(data, *, budget, clock=None, lr=0.1):
    torch.manual_seed(0)
    model = torch.nn.Linear(data[0].shape[1], 3)
    task = Task.classification(data, data)
    keys = {"clock": clock} if clock else {}
    return RunState(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9),
        task=task,
        train=data,
        val=data,
        device=CPU,
        precision=Precision("fp32", CPU),
        meter=Meter(peaks=NoMemory(), **keys),
        budget=budget,
    )


def data_of(n=20):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 4, generator=generator), torch.randint(0, 3, (n,), generator=generator)


def go(
    state,
    batch_size,
    instruments=(),
    rate=lambda examples: 0.1,
    stopping=lambda: False,
    enough=lambda: False,
    leave=False,
):
    """`leave`: when `state.budget` is reached, the run is stopped instead of ended."""
    upto = state.budget
    if leave:
        state.budget, stopping = 10**9, lambda: state.examples >= upto
    batches = Batches(state.train, micro_batch_sizes=[batch_size], seed=0, total=state.budget, position=state.examples)
    step = Eager(state.losses, state.optimizer)
    return list(train(state, batches, step, instruments, learning_rate=rate, stopping=stopping, enough=enough))


def test_it_is_the_plain_loop_bit_for_bit():
    data = data_of()
    state = run_state(data, budget=60)
    go(state, 5, [At(10)], rate=lambda examples: 0.1 / (1 + examples))

    torch.manual_seed(0)
    plain = torch.nn.Linear(4, 3)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    for start in range(0, 60, 5):
        optimizer.param_groups[0]["lr"] = 0.1 / (1 + start)
        index = row(20, 0, start, 5)
        optimizer.zero_grad()
        (F.cross_entropy(plain(data[0][index]), data[1][index], reduction="none").sum() / 5).backward()
        optimizer.step()

    assert (state.step, state.examples) == (12, 60)
    assert torch.equal(state.model.weight, plain.weight)
    assert torch.equal(state.model.bias, plain.bias)


@pytest.mark.parametrize(
    ("batch_size", "every", "expected"),
    [
        (4, 10, [0, 12, 20, 32, 40]),  # the first step beyond each multiple of 10, and the end
        (5, 10, [0, 10, 20, 30, 40]),
        (20, 10, [0, 20, 40]),  # at most once a step
        (8, 100, [0, 40]),  # the start and the end, whatever `every` is
        (4, None, [0, 40]),
    ],
)
def test_instruments_measure_at_the_same_examples_for_every_batch_size(batch_size, every, expected):
    instrument = At(every)
    go(run_state(data_of(), budget=40), batch_size, [instrument])
    assert instrument.seen == expected


def test_a_signal_stops_it_after_a_whole_step():
    state = run_state(data_of(), budget=40)
    instrument = At(100)
    requested = iter([False, False, True])
    go(state, 4, [instrument], stopping=lambda: next(requested))
    assert (state.step, state.examples) == (2, 8)
    assert instrument.seen == [0]  # no final measurement: it is to be resumed


def test_a_run_that_ends_early_makes_final_measurements():
    state = run_state(data_of(), budget=40)
    instrument = At(100)
    go(state, 4, [instrument], enough=lambda: state.examples >= 12)
    assert (state.step, state.examples) == (3, 12)
    assert instrument.seen == [0, 12]


@pytest.mark.parametrize(
    ("batch_size", "every"), [(4, 1), (4, 10), (5, 3), (5, 12), (20, 10), (5, 40), (20, 100), (20, None)]
)
def test_a_resumed_run_has_the_same_agenda(batch_size, every):
    whole = At(every)
    go(run_state(data_of(), budget=40), batch_size, [whole])
    for steps in range(1, 40 // batch_size + 1):
        first, second = At(every), At(every)
        go(run_state(data_of(), budget=steps * batch_size), batch_size, [first], leave=True)
        state = run_state(data_of(), budget=40)
        state.step, state.examples = steps, steps * batch_size
        go(state, batch_size, [second])
        assert first.seen + second.seen == whole.seen


def test_measuring_and_the_consumer_of_measurements_are_not_charged():
    now = [0.0]
    state = run_state(data_of(), budget=40, clock=lambda: now[0])

    class Slow(At):
        def measure(self, state):
            now[0] += 100.0
            yield from super().measure(state)

    batches = Batches(state.train, micro_batch_sizes=[4], seed=0, total=40)

    class TakesASecond(Eager):
        def __call__(self, micro_batches):
            now[0] += 1.0
            return super().__call__(micro_batches)

        def rehearse(self, micro_batches, device, costly=None):
            now[0] += 5000.0
            return super().rehearse(micro_batches, device)

    step = TakesASecond(state.losses, state.optimizer)
    for _ in train(state, batches, step, [Slow(8)], learning_rate=lambda examples: 0.1, stopping=lambda: False):
        now[0] += 1000.0  # a slow disk

    assert state.meter.seconds == 10.0
    assert state.meter.measuring_seconds == 6 * 1100.0


def test_the_rehearsed_batch_is_released_except_two_examples():
    data = data_of(4000)
    state = run_state(data, budget=3000)
    rehearsed = []

    class Kept(Batches):
        def first(self):
            micro_batches = super().first()
            rehearsed.append(weakref.ref(micro_batches[0][0].untyped_storage()))
            return micro_batches

    class Looks(Eager):
        def __call__(self, micro_batches):
            assert [storage() for storage in rehearsed] == [None]
            return super().__call__(micro_batches)

        def settle(self, examples, device):
            settled.append((len(examples[0]), examples[0].untyped_storage().nbytes()))
            super().settle(examples, device)

    settled = []
    batches = Kept(data, micro_batch_sizes=[1000], seed=0, total=3000)
    step = Looks(state.losses, state.optimizer)
    list(train(state, batches, step, [At(1000)], learning_rate=lambda examples: 0.1, stopping=lambda: False))

    assert state.step == 3
    assert set(settled) == {(2, 2 * 4 * 4)}  # two examples of four numbers, not their batch


def test_only_instruments_that_watch_are_called_each_step():
    class Watches(At):
        def watch(self, outcome):
            pass

    watching, silent = Watches(None), At(None)
    assert [w.__self__ for w in Agenda([watching, silent]).watchers] == [watching]


def test_settling_changes_only_gradients_and_keeps_one_copy_of_them():
    data = data_of(100)
    state = run_state(data, budget=100)
    state.model = model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3))
    state.optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = Eager(state.losses, state.optimizer)
    step((tuple(t[:50] for t in data),))
    before = [t.clone() for t in model.state_dict().values()]
    random_numbers, held = torch.get_rng_state(), [weakref.ref(p.grad) for p in model.parameters()]
    passed = []
    model[2].register_forward_hook(lambda *_: passed.append([grad() for grad in held]))

    step.settle(tuple(t[:2] for t in data), state.device)

    assert passed == [[None] * 4]
    assert [p.grad for p in model.parameters()] == [None] * 4
    assert all(map(torch.equal, before, model.state_dict().values()))
    assert torch.equal(random_numbers, torch.get_rng_state())
    assert model.training


def test_a_task_that_refuses_a_few_examples_is_not_settled():
    data = data_of(100)
    state = run_state(data, budget=100)

    def of_pairs(outputs, batch):
        assert len(batch[1]) > 2
        return F.cross_entropy(outputs, batch[1], reduction="none")

    state.task = Task(train=data, val=data, loss=of_pairs)
    step = Eager(state.losses, state.optimizer)
    batches = Batches(data, micro_batch_sizes=[25], seed=0, total=100)
    list(train(state, batches, step, [At(25)], learning_rate=lambda examples: 0.1, stopping=lambda: False))

    assert state.step == 4
