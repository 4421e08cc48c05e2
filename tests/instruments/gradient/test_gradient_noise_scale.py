"""The noise scale of training sets for which it is known, by every method; gradients compared with plain backward."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from instrument_catalogue import trained
from plain_defaults import configured
from still_life import run_state
from sweep_runs import Lab
from torch import nn

from batchlab import Task
from batchlab.config.plan import plan
from batchlab.errors import BadRequest
from batchlab.instruments.gradient.hessian_forms import hessian_forms
from batchlab.instruments.gradient.noise_scale import GradientNoiseScale
from batchlab.instruments.gradient.per_example import (
    CHUNK_BYTES,
    examples_at_once,
    freeze_statistics,
    per_example_gradients,
    per_example_norms,
)
from batchlab.instruments.gradient.unit_gradients import micro_batch_norms
from batchlab.instruments.panel import build_instruments
from batchlab.training.data.batches import slices
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.precision import Precision
from batchlab.training.losses import Losses

OFFERED = {"batch_size": 16, "micro_batch_size": 16, "eval_every": 100, "budget": 1000, "seed": 0}


def seen(state, **changes):
    return {m.name: m for m in GradientNoiseScale(**(OFFERED | changes)).measure(state)}


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classes(seed, n, k):
    return torch.randint(0, k, (n,), generator=torch.Generator().manual_seed(seed))


# Models and tasks, in float64


def images():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)]
    model = nn.Sequential(*layers).double()
    model(draw(9, 40, 1, 6, 6))  # so that the running statistics are not 0 and 1
    data = draw(0, 20, 1, 6, 6), classes(1, 20, 4)
    return model, Task.classification(data, data)


class Named(nn.Module):
    """Takes a dict, ties two weights, freezes one, and has an unused one."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 5)
        self.second = nn.Linear(5, 5)
        self.second.weight = self.first.weight
        self.fixed = nn.Parameter(torch.randn(5), requires_grad=False)
        self.gain = nn.Parameter(torch.tensor(1.1))
        self.unused = nn.Parameter(torch.randn(2))

    def forward(self, features, target):
        del target
        return self.second(torch.tanh(self.first(features) * self.gain) + self.fixed)


def dictionaries():
    torch.manual_seed(0)
    data = {"features": draw(0, 20, 5), "target": draw(1, 20, 5)}
    loss = lambda outputs, batch: (outputs - batch["target"]).square().mean(1)  # noqa: E731
    return Named().double(), Task(train=data, val=data, loss=loss)


class Characters(nn.Module):
    def __init__(self, vocabulary, context):
        super().__init__()
        self.table = nn.Embedding(vocabulary, 6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.out = nn.Linear(6, vocabulary)
        self.mask = nn.Transformer.generate_square_subsequent_mask(context, dtype=torch.float64)

    def forward(self, tokens):
        x = self.table(tokens)
        return self.out(x + self.attention(x, x, x, attn_mask=self.mask, is_causal=True, need_weights=False)[0])


def tokens():
    torch.manual_seed(0)
    text = classes(3, 20 * 7 + 1, 11)
    task = Task.language_model(text, text, context=7)
    return Characters(11, 7).double(), task


BUILT = {"images": images, "dictionaries": dictionaries, "tokens": tokens}


def exact(model, task):
    return Losses(model, task, Precision("fp32", CpuDevice()))


def one_by_one(model, task, parameters):
    """The gradient of each example's mean loss, flattened, (examples, parameters), by plain backward passes."""
    batch = task.train
    keys = list(batch) if isinstance(batch, dict) else range(len(batch))
    rows = []
    for i in range(20):
        pick = [batch[key][i : i + 1] for key in keys]
        one = dict(zip(keys, pick, strict=True)) if isinstance(batch, dict) else tuple(pick)
        for p in parameters:
            p.grad = None
        task.loss(task.forward(model, one), one).mean().backward()
        rows.append(torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]))
        for p in parameters:
            p.grad = None
    return torch.stack(rows)


@pytest.mark.parametrize("kind", BUILT)
def test_per_example_gradients_are_those_of_a_loop_of_backward_passes(kind):
    model, task = BUILT[kind]()
    freeze_statistics(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    expected = one_by_one(model, task, parameters)

    gradients, terms = per_example_gradients(exact(model, task), task.train, parameters)

    assert terms == (7 if kind == "tokens" else 1)
    found = torch.cat([g.reshape(20, -1) for g in gradients], dim=1) / terms
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-14)
    assert expected.abs().max() > 0.01


class WithFree(CpuDevice):
    """A device with `free` bytes of free memory."""

    def __init__(self, free):
        super().__init__()
        self.free = free

    def free_bytes(self):
        return self.free


def at_once(free, width=1000):
    """Examples at once for `width`^2 + `width` float64 weights, if the backward pass saves `width` values for each."""
    model = nn.Sequential(nn.Linear(width, width, dtype=torch.float64))
    data = draw(0, 2, width), draw(1, 2, width)
    state = run_state(model, Task.regression(data, data))
    state.device = WithFree(free)
    return examples_at_once(state, data)


def test_a_gpu_takes_as_many_examples_at_once_as_an_eighth_of_what_it_has_free():
    weights, gib = 8 * (1000**2 + 1000), 2**30

    assert at_once(None) == CHUNK_BYTES // weights == 8  # on the CPU
    assert at_once(0) == at_once(2**28) == 8  # an almost full GPU
    assert at_once(16 * gib) == pytest.approx(2 * gib / weights, rel=0.01)
    assert at_once(128 * gib) == pytest.approx(16 * gib / weights, rel=0.01)
    assert at_once(17 * gib) == at_once(20 * gib) == at_once(31 * gib) == at_once(16 * gib)  # the same when resuming


@pytest.mark.parametrize("chunk", [1, 7, 20])
@pytest.mark.parametrize("kind", BUILT)
def test_squared_norms_do_not_depend_on_how_the_examples_are_cut(kind, chunk):
    model, task = BUILT[kind]()
    freeze_statistics(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    each = one_by_one(model, task, parameters)
    factors = [torch.full_like(p, 3.0) for p in parameters]

    norms = per_example_norms(exact(model, task), task.train, parameters, [None, factors], chunk=chunk).sum(-1)

    small, big = each.square().sum(1).mean(), each.mean(0).square().sum()
    assert norms[:, 0].tolist() == pytest.approx([small.item(), big.item()], rel=1e-12)
    assert norms[:, 1].tolist() == pytest.approx([9 * small.item(), 9 * big.item()], rel=1e-12)


def of_unequal_counts():
    """A task with a term (x w)^2 for each positive number x of an example, and w's gradients in four micro-batches of
    it: that of the mean, (3,), and the deviation of each, (4, 3)."""
    data = (draw(4, 12, 6),)
    task = Task(
        train=data,
        val=data,
        forward=lambda model, batch: batch[0][batch[0] > 0].unsqueeze(1) @ model.weight,
        loss=lambda outputs, batch: outputs.square().sum(1),
        count=lambda batch: int((batch[0] > 0).sum()),
    )
    model = nn.Linear(3, 1, bias=False).double()
    weight = model.weight.detach().numpy()[0]
    positive = [part[part > 0] for part in data[0].numpy().reshape(4, 18)]
    summed = np.stack([2 * np.square(x).sum() * weight for x in positive])
    counts = np.array([len(x) for x in positive])
    assert len(set(counts)) > 1
    mean = summed.sum(0) / counts.sum()
    return model, task, mean, (summed - counts[:, None] * mean) / counts.mean()


def test_micro_batches_of_unequal_counts_deviate_by_what_they_add_to_the_mean():
    model, task, mean, deviations = of_unequal_counts()

    norms = micro_batch_norms(exact(model, task), slices(task.train, 3), [model.weight], [None]).sum(-1)

    expected = [np.square(mean + deviations).sum(1).mean(), np.square(mean).sum()]
    assert norms[:, 0].tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("micro_batch_size", [1, 2, 3])
def test_hessian_forms_are_those_of_the_hessian_of_other_data(micro_batch_size):
    model, task, mean, deviations = of_unequal_counts()
    others = (draw(5, 9, 6),)
    positive = others[0][others[0] > 0].numpy()
    curvature = 2 * np.square(positive).sum() / len(positive)  # times the identity matrix

    state, units = run_state(model, task), [*slices(task.train, 3)]
    forms = hessian_forms(state, state.losses, units, others, micro_batch_size=micro_batch_size)

    expected = [np.square(mean + deviations).sum(1).mean(), np.square(mean).sum()]
    assert forms.tolist() == pytest.approx([curvature * form for form in expected], rel=1e-12)


# A linear model under squared error: each example's gradient is 2 (w x - y) x


def regression(n=200, features=3, *, slope=0.3):
    x, y = draw(0, n, features), draw(1, n)
    y = y + x.sum(1)
    model = nn.Linear(features, 1, bias=False).double()
    nn.init.constant_(model.weight, slope)
    gradients = 2 * ((x @ model.weight.detach()[0]) - y)[:, None] * x
    return model, Task.regression((x, y), (x, y)), gradients.numpy()


def parts_of(gradients):
    """|G|^2 and tr(Sigma) of a population, with denominator N - 1."""
    return np.square(gradients.mean(0)).sum(), gradients.var(0, ddof=1).sum()


@pytest.mark.parametrize("method", ["per_example", "micro_batches"])
def test_both_methods_find_the_known_noise_scale_within_their_interval(method):
    model, task, gradients = regression()
    signal, noise = parts_of(gradients)

    found = seen(run_state(model, task), method=method, micro_batch_size=8, examples=64, draws=40)

    truths = {
        "noise/scale_examples": noise / signal,
        "noise/squared_gradient_norm": signal,
        "noise/gradient_variance": noise,
    }
    assert list(found) == list(truths)
    for name, truth in truths.items():
        m = found[name]
        assert m.low <= truth <= m.high
        assert m.n == 40
        assert m.high - m.low < 0.5 * truth  # otherwise an infinite interval would pass


@pytest.mark.parametrize("method", ["per_example", "micro_batches"])
def test_draws_of_the_whole_training_set_know_its_gradient_exactly(method):
    model, task, gradients = regression(n=32)
    signal, noise = parts_of(gradients)

    found = seen(run_state(model, task), method=method, micro_batch_size=4, examples=32, draws=10)

    norm = found["noise/squared_gradient_norm"]
    assert (norm.value, norm.low, norm.high) == pytest.approx((signal,) * 3, rel=1e-9)
    if method == "per_example":
        scale = found["noise/scale_examples"]
        assert (scale.value, scale.low, scale.high) == pytest.approx((noise / signal,) * 3, rel=1e-6)


def test_a_draw_holds_whole_micro_batches():
    model, task, gradients = regression(n=9)
    norm = seen(run_state(model, task), method="micro_batches", examples=9)["noise/squared_gradient_norm"]
    assert norm.low < norm.high  # 4 micro-batches of 2 examples: one example is left out, a different one each time
    assert norm.low < parts_of(gradients)[0] < norm.high


def test_batch_norm_uses_its_running_statistics_per_example_and_the_micro_batchs_own_else():
    model, task = images()
    state = run_state(model, task)
    by_micro_batches = seen(state, method="micro_batches", examples=20, micro_batch_size=10)
    per_example = seen(state, method="per_example", examples=20)
    assert model[1].training

    frozen = copy.deepcopy(model)
    freeze_statistics(frozen)
    signal, noise = parts_of(one_by_one(frozen, task, list(frozen.parameters())).numpy())
    assert per_example["noise/scale_examples"].value == pytest.approx(noise / signal, rel=1e-6)
    assert by_micro_batches["noise/squared_gradient_norm"].value != pytest.approx(signal, rel=0.01)


def test_no_pass_of_the_full_form_is_left_with_one_example():
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).double()
    data = draw(0, 40, 4), classes(1, 40, 3)
    # an eighth of 40 is 5, a micro-batch and one
    found = seen(run_state(model, Task.classification(data, data)), full=True, micro_batch_size=4, examples=40)
    assert found["noise/full_scale_examples"].high > 0


def test_adams_noise_scale_uses_its_second_moment():
    model, task, gradients = regression(n=32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.99), eps=1e-3, weight_decay=0.0)
    state = run_state(model, task, optimizer=optimizer)
    assert "noise/adam_scale_examples" not in seen(state, examples=32)  # it does not exist before the first step

    second = np.zeros(3)
    for step in range(4):
        gradient = np.array([0.1 * step, 2.0, -5.0 + step])
        model.weight.grad = torch.tensor(gradient)[None]
        optimizer.step()
        second = 0.99 * second + 0.01 * gradient**2
    signal, noise = parts_of(gradients / (np.sqrt(second / (1 - 0.99**4)) + 1e-3))

    found = seen(state, examples=32)
    assert found["noise/adam_scale_examples"].value == pytest.approx(noise / signal, rel=1e-6)
    plain_signal, plain_noise = parts_of(gradients)
    assert found["noise/scale_examples"].value == pytest.approx(plain_noise / plain_signal, rel=1e-6)
    assert noise / signal != pytest.approx(plain_noise / plain_signal, rel=0.2)
    assert "noise/adam_scale_examples" not in seen(state, examples=32, adam=False)


def test_each_layer_has_its_own_noise_scale():
    model, task = dictionaries()
    gradients = one_by_one(model, task, [p for p in model.parameters() if p.requires_grad]).numpy()

    found = seen(run_state(model, task), method="per_example", examples=20, per_layer=True)

    widths = {"gain": 1, "unused": 2, "first": 30, "second": 5}  # the weight of both is the first's
    order = [name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad]
    starts = np.cumsum([0, *(p.numel() for p in model.parameters() if p.requires_grad)])
    for layer, width in widths.items():
        columns = np.concatenate([np.arange(starts[i], starts[i + 1]) for i, o in enumerate(order) if o == layer])
        assert len(columns) == width
        signal, noise = parts_of(gradients[:, columns])
        scale = found[f"noise/scale_examples.{layer}"]
        if layer == "unused":
            assert scale.value == scale.high == math.inf
        else:
            assert scale.value == pytest.approx(noise / signal, rel=1e-6)


class Bowl(nn.Module):
    """Losses (w - c)'A(w - c)/2 for examples c: the Hessian is A."""

    def __init__(self, curvature):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        self.register_buffer("curvature", curvature)

    def forward(self, centre):
        away = self.weight - centre
        return ((away @ self.curvature) * away).sum(1) / 2


@pytest.mark.parametrize("micro_batch_size", [4, 16])
def test_the_full_noise_scale_of_a_quadratic_is_the_closed_form(micro_batch_size):
    curvature = torch.tensor([[4.0, 0.5, 0.0], [0.5, 1.0, 0.1], [0.0, 0.1, 0.5]], dtype=torch.float64)
    data = (draw(6, 64, 3),)
    task = Task(train=data, val=data, loss=lambda outputs, batch: outputs)
    model = Bowl(curvature)
    model.weight.data = data[0].mean(0) + torch.tensor([0.0, 0.0, 3.3])
    matrix = curvature.numpy()
    gradients = (model.weight.detach() - data[0]).numpy() @ matrix
    truth = np.trace(matrix @ np.cov(gradients.T)) / (gradients.mean(0) @ matrix @ gradients.mean(0))
    signal, noise = parts_of(gradients)
    assert truth > 3 * noise / signal

    found = seen(run_state(model, task), full=True, micro_batch_size=micro_batch_size, examples=64, draws=20)

    full = found["noise/full_scale_examples"]
    assert abs(math.log(full.value / truth)) < math.log(full.high / full.low)  # about 4 standard errors
    assert full.high / full.low < 1.8


def test_dropout_is_noise():
    # The output is the sum of w_k m_k with masks m of mean 1 and variance 1, so g = m: |G|^2 = 20 and tr(Sigma) = 20.
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(20, 1, bias=False)).double()
    data = (torch.ones(512, 20, dtype=torch.float64),)
    task = Task(train=data, val=data, loss=lambda outputs, batch: outputs[:, 0])
    for method in ("per_example", "micro_batches"):
        scale = seen(run_state(model.eval(), task), method=method)["noise/scale_examples"]
        assert scale.low <= 1.0 <= scale.high
        assert scale.high - scale.low < 0.5


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_it_is_measured_in_full_precision_whatever_the_run_trains_in(precision):
    model, task, gradients = regression(n=32)
    model = model.float()
    data = tuple(t.float() for t in task.train)
    signal, _ = parts_of(gradients)
    for method in ("per_example", "micro_batches"):
        found = seen(
            run_state(model, Task.regression(data, data), precision=precision),
            method=method,
            micro_batch_size=4,
            examples=32,
        )
        assert found["noise/squared_gradient_norm"].value == pytest.approx(signal, rel=1e-5)


# Models that do not support it


def with_a_loss_of_pairs():
    data = (draw(0, 40, 4), draw(1, 40, 4))
    loss = lambda outputs, batch: F.cross_entropy(outputs @ batch[1].T, torch.arange(len(outputs)), reduction="none")  # noqa: E731
    return nn.Linear(4, 4).double(), Task(train=data, val=data, loss=loss)


def with_a_norm_over_the_batch():
    data = draw(0, 40, 2, 3), classes(0, 40, 3)
    model = nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False), nn.Flatten(), nn.Linear(6, 3)).double()
    return model, Task.classification(data, data)


class Fickle(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3).double()

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else self.layer(-x)


def with_a_branch_on_values():
    data = draw(0, 40, 4), classes(0, 40, 3)
    return Fickle(), Task.classification(data, data)


def with_padding():
    data = draw(0, 40, 4), classes(0, 40, 3)
    task = Task.classification(data, data)
    return nn.Linear(4, 3).double(), Task(
        train=data, val=data, loss=task.loss, count=lambda batch: int((batch[1] > 0).sum())
    )


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (with_a_loss_of_pairs, "depends on the other examples of its batch"),
        (with_a_norm_over_the_batch, "depends on the other examples of its batch"),
        (with_a_branch_on_values, r"torch.func cannot compute this model's gradients per example \(.*control"),
        (with_padding, "differ in their number of terms"),
    ],
)
def test_a_model_without_per_example_gradients_is_refused_with_the_other_method(build, reason):
    model, task = build()
    with pytest.raises(BadRequest, match=f"{reason}.*: use instruments.noise_scale.method=micro_batches"):
        seen(run_state(model, task), method="per_example", examples=32)
    if build is not with_padding:
        assert math.isfinite(seen(run_state(model, task), method="micro_batches")["noise/gradient_variance"].value)


class Once(torch.autograd.Function):
    """The identity, with a derivative that cannot be differentiated."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient * 1


class Layered(nn.Module):
    def __init__(self, before):
        super().__init__()
        self.layer = nn.Linear(4, 3).double()
        self.before = before

    def forward(self, x):
        return self.layer(self.before(self.layer.weight.sum() * x))


def test_a_model_that_cannot_be_differentiated_twice_is_refused_with_advice_to_leave_out_the_full_form():
    data = draw(0, 40, 4), classes(0, 40, 3)
    state = run_state(Layered(Once.apply), Task.classification(data, data))
    with pytest.raises(
        BadRequest, match=r"twice, which this model does not support: .*; use instruments.noise_scale.full=false"
    ):
        seen(state, method="micro_batches", full=True)
    assert len(seen(state, method="micro_batches")) == 3


def at_all(x):
    raise torch.OutOfMemoryError("CUDA out of memory.")


def alone(x):
    return at_all(x) if len(x) == 1 else x


class WithAGraph(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return at_all(gradient) if torch.is_grad_enabled() else gradient


@pytest.mark.parametrize(
    ("full_up", "changes"),
    [
        (at_all, {"method": "micro_batches"}),
        (alone, {"method": "per_example"}),
        (WithAGraph.apply, {"method": "micro_batches", "full": True}),
    ],
)
def test_out_of_memory_is_left_to_the_loop_which_leaves_out_the_instrument(full_up, changes):
    data = draw(0, 40, 4), classes(0, 40, 3)
    with pytest.raises(torch.OutOfMemoryError):
        seen(run_state(Layered(full_up), Task.classification(data, data)), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "micro"}, "method=micro is invalid: it must be one of auto, micro_batches, per_example"),
        ({"draws": 9}, "draws=9 is invalid: it must be an integer of at least 10"),
        ({"draws": 10.0}, "draws=10.0 is invalid"),
        ({"examples": 4}, "examples=4 is invalid: it must be null, or at least 8"),
        ({"every": 0}, "every=0 is invalid: it must be an integer of at least 1, or null"),
        ({"adam": True}, "adam=True is invalid: it must be auto or false"),
        ({"full": "yes"}, "full=yes is invalid: it must be true or false"),
        ({"per_layer": 1}, "per_layer=1 is invalid: it must be true or false"),
    ],
)
def test_an_invalid_option_is_refused_before_the_start(changes, message):
    with pytest.raises(BadRequest, match=rf"instruments\.noise_scale\.{message}"):
        GradientNoiseScale(**(OFFERED | changes))


def test_a_refusal_names_the_instrument_by_its_key_in_the_config():
    config = configured(
        device="cpu",
        instruments={
            "second": {"_target_": "batchlab.instruments.gradient.noise_scale.GradientNoiseScale", "draws": 9}
        },
    )
    _, task, _ = regression(n=32)
    with pytest.raises(BadRequest, match=r"^instruments\.second\.draws=9 is invalid"):
        build_instruments(config, plan(config, 32), task)


def test_draws_larger_than_the_data_are_refused_and_so_are_data_too_small():
    model, task, _ = regression(n=32)
    with pytest.raises(BadRequest, match="examples=33 is more than the training set of 32 examples: use at most 32"):
        seen(run_state(model, task), examples=33)
    model, task, _ = regression(n=7)
    with pytest.raises(BadRequest, match="needs at least 8 training examples, and there are 7: use ~instruments"):
        seen(run_state(model, task))


# When, how, and with which name


def test_it_measures_equally_often_and_at_the_same_examples_for_all_batch_sizes():
    looks = {
        GradientNoiseScale(batch_size=b, micro_batch_size=b, eval_every=359, budget=28740 // b * b, seed=0).every
        for b in (8, 32, 128, 512)
    }
    assert looks == {18 * 359}  # so at 0, 6,462, 12,924, 19,386 and 25,848, and at the end
    assert GradientNoiseScale(**(OFFERED | {"eval_every": 5000})).every == 5000
    assert GradientNoiseScale(**OFFERED, every=7).every == 7


def test_a_run_that_accumulates_is_measured_by_micro_batches_and_another_by_examples():
    assert GradientNoiseScale(**OFFERED).method == "per_example"
    assert GradientNoiseScale(**(OFFERED | {"micro_batch_size": 4})).method == "micro_batches"
    assert GradientNoiseScale(**(OFFERED | {"micro_batch_size": 4}), method="per_example").method == "per_example"


def test_a_second_instrument_has_separate_names_and_draws():
    model, task, _ = regression()
    state = run_state(model, task)
    first, second = seen(state, examples=32), seen(state, examples=32, group="noise_again")
    assert [name.replace("noise_again/", "noise/") for name in second] == list(first)
    assert first["noise/gradient_variance"].value != second["noise_again/gradient_variance"].value


@pytest.mark.parametrize("method", [pytest.param("per_example", marks=pytest.mark.slow), "micro_batches"])
def test_a_resumed_run_measures_what_it_would_have_measured(method):
    torch.manual_seed(0)
    data = draw(0, 60, 4), classes(0, 60, 3)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3)).double()
    state = run_state(model, Task.classification(data, data))
    first = GradientNoiseScale(**OFFERED, method=method, examples=16, full=True)
    list(first.measure(state))
    kept = first.state_dict()
    expected = list(first.measure(state))

    second = GradientNoiseScale(**OFFERED, method=method, examples=16, full=True)
    second.load_state_dict(kept)
    assert list(second.measure(state)) == expected
    assert expected != list(first.measure(state))


def test_what_training_has_drawn_before_does_not_move_a_measurement():
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3)).double()
    data = draw(0, 60, 4), classes(0, 60, 3)
    taken = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        taken.append(seen(run_state(model, Task.classification(data, data))))
    assert taken[0] == taken[1]


def test_weights_that_are_not_finite_have_no_noise_scale():
    model, task, _ = regression()
    nn.init.constant_(model.weight, math.nan)
    for method in ("per_example", "micro_batches"):
        scale = seen(run_state(model, task), method=method)["noise/scale_examples"]
        assert math.isnan(scale.value)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_micro_batches_leave_no_trace(precision):
    # Per example and with `full`: see `test_no_trace`.
    instrument = GradientNoiseScale(**(OFFERED | {"budget": 120, "eval_every": 40}), method="micro_batches")
    tensors, rest, _ = trained([], precision)
    seen_tensors, seen_rest, measured = trained([instrument], precision)

    assert all(torch.equal(a, b) for a, b in zip(seen_tensors, tensors, strict=True))
    assert seen_rest == rest
    assert len(measured) == 4 * 3 + 3  # at 0, 40, 80 and 120 examples; Adam's from the first step on


def test_an_unresolved_scale_is_kept_in_the_journal_and_the_record(lab: Lab):
    target = "batchlab.instruments.gradient.noise_scale.GradientNoiseScale"
    point = lab.point(
        f"+instruments.noise_scale._target_={target}",
        "+instruments.noise_scale.examples=8",
        f"+instruments.noise_scale_too._target_={target}",
        "+instruments.noise_scale_too.method=micro_batches",
        "+instruments.noise_scale_too.group=noise_micro_batches",
        "+instruments.noise_scale_too.examples=64",
        "examples=640",
    )

    (record,) = lab.run(point).records

    # draws of 8 examples cannot resolve such a large noise scale
    taken = [m for m in lab.metrics(point) if m.name == "noise/scale_examples"]
    assert math.isinf(record.final["noise/scale_examples"])
    assert math.isinf(taken[-1].high)
    assert taken[-1].low > 0
    assert [m.examples for m in taken] == [0, 384, 640]
    assert 1 < record.final["noise_micro_batches/scale_examples"] < 1000
