"""Gradient statistics compared with enumeration, closed forms and plain PyTorch."""

import copy
import io
import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from still_life import by_name, classified, run_state
from torture import resuming

from batchlab import BadRequest, Task
from batchlab.instruments.gradient.gradient_statistics import GradientStatistics, _within_one
from batchlab.science.statistics.samples import sample_mean
from batchlab.science.statistics.uncertainty import Interval


def instrument(batch_size, *, micro_batch_size=None, clip_norm=None, seed=0, **options):
    micro_batch_size = micro_batch_size or batch_size
    return GradientStatistics(
        batch_size=batch_size, micro_batch_size=micro_batch_size, budget=80, clip_norm=clip_norm, seed=seed, **options
    )


def line(n=8):
    """A linear regression of `n` points in two dimensions, away from its minimum, and the gradients of its examples."""
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(n, size, generator=generator, dtype=torch.float64) for size in (2, 1))
    model = torch.nn.Linear(2, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.7, -1.1]]))
    gradients = 2 * (x @ model.weight.detach().T - y) * x
    return model, Task.regression((x, y), (x, y)), gradients.numpy()


# variance


def test_the_variance_is_that_of_all_batches_there_are_and_follows_the_law_of_a_finite_set():
    n, pairs = 8, 100
    model, task, gradients = line(n)
    exact, seen = {}, {}
    for batch_size in (1, 4, 7):
        every = np.array([gradients[list(rows)].mean(axis=0) for rows in itertools.combinations(range(n), batch_size)])
        half_squares = np.square(every[:, None] - every[None]).sum(axis=2) / 2  # of two independent batches
        exact[batch_size] = half_squares.mean()
        variance = by_name(instrument(batch_size, pairs=pairs).measure(run_state(model, task)))["gradient/variance"]
        seen[batch_size] = variance.value

        assert variance.value == pytest.approx(exact[batch_size], abs=4 * half_squares.std() / math.sqrt(pairs))
        assert variance.n == pairs
        assert variance.low < exact[batch_size] < variance.high
        assert variance.high / variance.low < 2.5

    law = [math.log(1 / b - 1 / n) for b in exact]
    slopes = [np.polyfit(law, np.log(list(found.values())), 1)[0] for found in (exact, seen)]
    assert slopes[0] == pytest.approx(1.0, abs=1e-12)
    assert slopes[1] == pytest.approx(1.0, abs=0.2)  # 4 standard errors


def test_the_variance_of_the_whole_set_is_0():
    model, task, _ = line(8)
    for micro_batch_size in (8, 3):
        seen = by_name(instrument(8, micro_batch_size=micro_batch_size).measure(run_state(model, task)))
        variance = seen["gradient/variance"]
        assert (variance.value, variance.low, variance.high) == (0.0, 0.0, 0.0)


def test_dropout_is_part_of_the_variance_with_a_new_mask_for_each_draw():
    # One example x = 1, w = 1, target 0, kept with probability 1/2 and then doubled: the gradient is 8 or 0, each
    # half of the time, and its variance 16.
    data = (torch.ones(1, 1), torch.zeros(1, 1))
    model = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.Dropout(0.5))
    torch.nn.init.ones_(model[0].weight)
    model.eval()  # in any mode

    seen = by_name(instrument(1, pairs=150).measure(run_state(model, Task.regression(data, data))))

    assert seen["gradient/variance"].value == pytest.approx(16.0, abs=4 * 16 / math.sqrt(150))


def test_accumulation_changes_nothing_but_the_rounding():
    task = classified()
    model = torch.nn.Linear(4, 3, dtype=torch.float64)
    whole, cut = (
        by_name(instrument(7, micro_batch_size=micro, pairs=3, steps=2).measure(run_state(model, task, step=1)))
        for micro in (7, 3)
    )
    assert {name: m.value for name, m in cut.items()} == {
        name: pytest.approx(m.value, rel=1e-9) for name, m in whole.items()
    }


def test_small_batches_are_drawn_more_often():
    assert [instrument(b).pairs for b in (1, 8, 32, 512)] == [100, 64, 16, 10]
    assert instrument(8, pairs=3).pairs == 3


def test_a_gradient_that_overflows_has_no_variance_rather_than_a_wrong_one():
    model, task, _ = line(8)
    with torch.no_grad():
        model.weight.fill_(1e308)
    variance = by_name(instrument(2).measure(run_state(model, task)))["gradient/variance"]
    assert not math.isfinite(variance.value)
    assert (variance.low, variance.high) == (None, None)


# steps


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    "Nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, foreach=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
    "fused AdamW": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
}


@pytest.mark.parametrize("clip_norm", [None, 0.01])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ratio_and_cosine_are_those_of_a_real_step(name, clip_norm):
    # Batches of the whole set, so that nothing is random.
    task = classified()
    inputs, labels = task.train
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double()
    optimizer = OPTIMIZERS[name](model.parameters())

    def gradient():
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), labels).backward()
        return flat(p.grad for p in model.parameters())

    def step():
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()

    for _ in range(3):
        gradient()
        step()
    state = run_state(model, task, optimizer=optimizer, step=3)
    before, kept = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())

    seen = by_name(instrument(30, pairs=1, steps=2, clip_norm=clip_norm).measure(state))

    assert same(model.state_dict(), before)
    assert same(optimizer.state_dict(), kept)
    weights, first = flat(model.parameters()), gradient()
    step()
    change, second = flat(model.parameters()) - weights, gradient()
    ratio = seen["gradient/update_to_weight_ratio"]
    assert ratio.value == pytest.approx((change.norm() / weights.norm()).item(), rel=1e-9)
    assert (ratio.low, ratio.high, ratio.n) == (pytest.approx(ratio.value), pytest.approx(ratio.value), 2)
    cosine = F.cosine_similarity(first, second, dim=0).item()
    assert seen["gradient/cosine_successive"].value == pytest.approx(cosine, rel=1e-9)


def flat(tensors):
    return torch.cat([t.detach().flatten().clone() for t in tensors])


def same(one, two):
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(two) and all(map(same, one, two))
    return torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two


def one_hot(n):
    """Example i has a gradient for weight i alone: the gradient of a batch shows which examples are in it."""
    data = (torch.eye(n),)
    task = Task(train=data, val=data, loss=lambda outputs, batch: outputs.squeeze(1))
    return torch.nn.Linear(n, 1, bias=False), task


def test_successive_batches_have_no_example_in_common_within_an_epoch():
    model, task = one_hot(12)
    seen = {b: by_name(instrument(b, pairs=1).measure(run_state(model, task, step=1))) for b in (2, 6, 9)}

    for batch_size in (2, 6):
        cosine = seen[batch_size]["gradient/cosine_successive"]
        assert (cosine.value, cosine.low, cosine.high, cosine.n) == (0.0, 0.0, 0.0, 5)
    # 9 of 12, then the other 3 and 6 of all 12, of which 3 to 6 were among the 9, and the rest appears twice
    assert 3 / 135**0.5 <= seen[9]["gradient/cosine_successive"].value <= 6 / 9


def test_the_interval_of_the_cosine_is_over_fresh_draws():
    model, task, _ = line(8)
    seen = by_name(instrument(2, pairs=1, steps=20).measure(run_state(model, task, step=1)))
    cosine = seen["gradient/cosine_successive"]
    assert cosine.n == 20
    assert -1 <= cosine.low < cosine.value < cosine.high <= 1


@pytest.mark.parametrize(("key", "value"), [("every", 0), ("pairs", 0), ("pairs", "many"), ("steps", -3)])
def test_an_invalid_count_is_refused(key, value):
    with pytest.raises(BadRequest, match=rf"^instruments\.gradient_statistics\.{key}={value} is invalid"):
        instrument(4, **{key: value})


def test_the_interval_of_the_cosine_stays_within_what_a_cosine_can_be():
    """A plain t interval of these would exceed 1."""
    assert _within_one(sample_mean([0.9, 0.5, 1.0, 0.99])) == Interval(
        pytest.approx(0.8475), pytest.approx(0.475, abs=0.01), 1.0, 4
    )


def test_no_step_is_measured_before_the_first_one():
    model, task, _ = line(8)
    assert list(by_name(instrument(2).measure(run_state(model, task)))) == ["gradient/variance"]


def test_an_optimizer_with_extra_attributes_is_not_disturbed():
    class Counting(torch.optim.SGD):
        def __init__(self, parameters):
            super().__init__(parameters, lr=0.1, momentum=0.9)
            self.inner = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
            self.calls = 0

        def step(self, closure=None):
            self.calls += 1
            self.inner.step()
            return super().step(closure)

    model, task, _ = line(8)
    optimizer = Counting(list(model.parameters()))
    before = model.weight.clone()

    seen = by_name(instrument(2).measure(run_state(model, task, optimizer=optimizer, step=1)))

    assert seen["gradient/update_to_weight_ratio"].value > 0
    assert (optimizer.calls, dict(optimizer.state), dict(optimizer.inner.state)) == (0, {}, {})
    assert torch.equal(model.weight, before)


def test_a_weight_that_no_batch_reaches_is_left_alone():
    model, task, _ = line(8)
    model.idle = torch.nn.Linear(3, 3, dtype=torch.float64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    moved = by_name(instrument(8, steps=1).measure(run_state(model, task, optimizer=optimizer, step=1)))

    gradient = torch.autograd.grad((model(task.train[0]) - task.train[1]).square().mean(), model.weight)[0]
    change = 0.1 * (gradient.sign() + 0.5 * model.weight.detach())  # Adam's first step, and decay
    size = flat(model.parameters()).norm()
    expected = (change.norm() / size).item()
    assert moved["gradient/update_to_weight_ratio"].value == pytest.approx(expected, rel=1e-6)


# resuming


def test_it_resumes_as_if_it_had_not_stopped():
    model, task, _ = line(8)
    undisturbed, stopped = instrument(3, pairs=3), instrument(3, pairs=3)
    list(undisturbed.measure(run_state(model, task)))
    list(stopped.measure(run_state(model, task)))
    written = io.BytesIO()
    torch.save(stopped.state_dict(), written)
    resumed = instrument(3, seed=7, pairs=3)
    resumed.load_state_dict(torch.load(io.BytesIO(written.getvalue()), weights_only=True))

    expected, seen, other = (
        [m.value for m in i.measure(run_state(model, task, step=1))]
        for i in (undisturbed, resumed, instrument(3, pairs=3))
    )

    assert seen == expected
    assert other != expected


def test_a_run_with_it_resumes_bitwise(tmp_path):
    config = {
        "model": {"norm": True, "dropout": 0.3, "hidden_buffer": True},
        "instruments": {
            "validation": {"_target_": "batchlab.instruments.validation.Validation"},
            "gradient_statistics": {
                "_target_": "batchlab.instruments.gradient.gradient_statistics.GradientStatistics",
                "every": 8,
                "pairs": 3,
                "steps": 2,
            },
            "generalisation": {"_target_": "batchlab.instruments.generalisation.gap.Generalisation", "every": 8},
            "worst_class": {"_target_": "batchlab.instruments.generalisation.worst_class.WorstClass", "every": 8},
        },
    }
    expected, _ = resuming.undisturbed(config, tmp_path)
    assert resuming.exact(config, (4,), expected, tmp_path) is None
