"""The sharpness instrument: compared with dense Hessians, and at matched training loss."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from still_life import run_state

from batchlab import BadRequest, Task
from batchlab.instruments.curvature.hessian import loss_surface
from batchlab.instruments.curvature.sharpness import Sharpness
from batchlab.training.data.batches import Batches
from batchlab.training.loop import train
from batchlab.training.updates.eager import Eager


def state_of(model, task, *, precision="fp32"):
    return run_state(model, task, precision=precision, step=7)


def data_of(n, features=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, features, generator=generator), torch.randint(0, 3, (n,), generator=generator)


def small_net(**layers):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3), *layers.values())


def instrument(**options):
    return Sharpness(**({"log_every": 10, "seed": 0, "probes": 4} | options))


def values(measurements):
    return {m.name: m.value for m in measurements}


def dense_hessian(model, loss_of):
    """The Hessian of `loss_of(model at given weights)`, over all its trainable parameters."""
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    shapes = [dict(model.named_parameters())[name].shape for name in names]
    flat = torch.cat([dict(model.named_parameters())[name].detach().flatten() for name in names])

    def loss(w):
        pieces = [v.view(s) for v, s in zip(w.split([s.numel() for s in shapes]), shapes, strict=True)]
        return loss_of(lambda *x: torch.func.functional_call(model, dict(zip(names, pieces, strict=True)), x))

    return torch.autograd.functional.hessian(loss, flat)


def product_of(state, data, vector, *, chunk, double=False):
    with loss_surface(state, data, chunk=chunk, double=double) as surface:
        return surface.hessian_product(vector.to(surface.dtype))


def probe(model):
    size = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return torch.randn(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


# products with the Hessian


@pytest.mark.parametrize("chunk", [1, 3, 10, 100])
def test_a_product_is_that_of_the_hessian_of_the_mean_however_it_is_cut(chunk):
    model, (inputs, labels) = small_net().double(), data_of(10)
    inputs = inputs.double()
    dense = dense_hessian(model, lambda net: F.cross_entropy(net(inputs), labels))
    state = state_of(model, Task.classification((inputs, labels), (inputs, labels)))

    seen = product_of(state, state.train, probe(model), chunk=chunk)

    assert torch.allclose(seen, dense @ probe(model), rtol=1e-10, atol=1e-14)


def test_terms_count_and_not_examples():
    # Tokens: the mean is over all that are not padding, and the chunks have different numbers of them.
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(6, 3), torch.nn.Linear(3, 6)).double()
    tokens = torch.randint(1, 6, (7, 5), generator=torch.Generator().manual_seed(2))
    tokens[0, 1:], tokens[3, 2:] = 0, 0
    data = {"tokens": tokens}
    task = Task(
        train=data,
        val=data,
        forward=lambda model, batch: model(batch["tokens"][:, :-1]),
        loss=lambda outputs, batch: F.cross_entropy(
            outputs.flatten(0, 1), batch["tokens"][:, 1:].flatten(), reduction="none"
        )[batch["tokens"][:, 1:].flatten() > 0],
        count=lambda batch: int((batch["tokens"][:, 1:] > 0).sum()),
    )
    dense = dense_hessian(
        model,
        lambda net: F.cross_entropy(net(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=0),
    )
    seen = product_of(state_of(model, task), data, probe(model), chunk=3)
    assert torch.allclose(seen, dense @ probe(model), rtol=1e-10, atol=1e-14)


def test_it_uses_no_dropout_and_batch_norms_running_statistics():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 5), torch.nn.BatchNorm1d(5), torch.nn.Tanh(), torch.nn.Dropout(0.5), torch.nn.Linear(5, 3)
    ).double()
    model[1].running_mean.fill_(0.3)
    model[1].running_var.fill_(2.0)
    inputs, labels = data_of(11)
    inputs = inputs.double()
    dense = dense_hessian(copy.deepcopy(model).eval(), lambda net: F.cross_entropy(net(inputs), labels))
    state = state_of(model, Task.classification((inputs, labels), (inputs, labels)))
    model.train()

    seen = product_of(state, state.train, probe(model), chunk=4)

    assert torch.allclose(seen, dense @ probe(model), rtol=1e-10, atol=1e-14)
    assert model[1].training
    assert torch.equal(model[1].running_mean, torch.full((5,), 0.3, dtype=torch.float64))


def test_frozen_tied_and_half_precision_weights_are_what_they_are():
    # The last layer shares the first one's weight, the middle one is frozen, and all are bfloat16: computed in float32.
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh(), torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    model[3].weight = model[0].weight
    model[2].requires_grad_(False)
    model.bfloat16()
    inputs, labels = data_of(9)
    inputs = inputs.bfloat16()
    wide = copy.deepcopy(model).double()
    dense = dense_hessian(wide, lambda net: F.cross_entropy(net(inputs.double()), labels))
    state = state_of(model, Task.classification((inputs, labels), (inputs, labels)))

    for double, tolerance in ((False, 1e-5), (True, 1e-12)):
        seen = product_of(state, state.train, probe(model), chunk=4, double=double)
        assert seen.dtype == (torch.float64 if double else torch.float32)
        assert len(seen) == 16 + 4 + 4
        assert torch.allclose(seen.double(), dense @ probe(model), rtol=tolerance, atol=tolerance / 10)


def test_a_loss_that_is_linear_in_the_weights_has_no_curvature():
    data = (torch.randn(5, 4),)
    model = torch.nn.Linear(4, 1)
    task = Task(train=data, val=data, loss=lambda outputs, batch: outputs[:, 0])
    assert torch.equal(product_of(state_of(model, task), data, torch.ones(5), chunk=2), torch.zeros(5))


class Attending(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = torch.nn.Linear(4, 3)

    def forward(self, x):
        x = x.view(-1, 2, 4)
        x = x + F.scaled_dot_product_attention(x, x, x) + self.inner(x, x, x, need_weights=False)[0]
        return self.head(x.mean(dim=1))


class Recurrent(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.LSTM(4, 3, batch_first=True)

    def forward(self, x):
        return self.inner(x.view(-1, 2, 4))[0][:, -1]


@pytest.mark.parametrize("kind", [Attending, Recurrent])
def test_attention_and_recurrent_layers_are_differentiated_twice_by_other_kernels(kind):
    torch.manual_seed(0)
    model, data = kind(), data_of(6, features=8)
    state = state_of(model, Task.classification(data, data))
    seen = []
    model.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.enabled))
    direction = F.normalize(probe(model), dim=0)

    with loss_surface(state, data, chunk=4, double=True) as surface:
        product = surface.hessian_product(direction)
        step = 1e-5
        ahead = surface.gradient(surface.weights + step * direction)[1]
        behind = surface.gradient(surface.weights - step * direction)[1]

    assert product.norm() > 0.01
    assert torch.allclose(product, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-8)
    with loss_surface(state, data, chunk=4, double=False) as surface:
        assert torch.allclose(surface.hessian_product(direction.float()).double(), product, rtol=1e-3, atol=1e-5)
    assert set(seen) == {kind is Attending}  # cuDNN, on CUDA, is disabled for recurrent layers only
    assert torch.backends.cudnn.enabled
    assert torch.backends.cuda.flash_sdp_enabled()


def test_a_model_that_draws_in_eval_mode_gets_the_same_draws_each_time():
    class Drawing(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x + torch.randn(len(x), 1))

    data = data_of(6)
    state = state_of(Drawing(4, 3), Task.classification(data, data))
    before = torch.get_rng_state()
    with loss_surface(state, data, chunk=6, double=False) as surface:
        assert surface.value(surface.weights) == surface.value(surface.weights)
    assert torch.equal(torch.get_rng_state(), before)


# what is measured


def test_at_the_end_all_agrees_with_the_dense_hessian():
    trained, data = small_net(), data_of(23)  # trained in float32, measured in float64
    model, (inputs, labels) = copy.deepcopy(trained).double(), (data[0].double(), data[1])
    dense = dense_hessian(model, lambda net: F.cross_entropy(net(inputs), labels))
    spectrum = np.linalg.eigvalsh(dense.numpy())
    assert spectrum[0] < 0  # otherwise the other end would not be tested

    watching = instrument(chunk=7, double=True, tolerance=1e-9, products=100, probes=43)
    measured = {m.name: m for m in watching.conclude(state_of(trained, Task.classification(data, data)))}

    largest, smallest, traced = (measured[f"sharpness/{name}"] for name in ("lambda_max", "lambda_min", "trace"))
    assert largest.value == pytest.approx(spectrum[-1], rel=1e-6)
    assert smallest.value == pytest.approx(spectrum[0], rel=1e-6)
    assert largest.low <= largest.value <= largest.high <= largest.low + 1e-6
    assert traced.value == pytest.approx(spectrum.sum(), rel=1e-9)  # as many probes as weights: exact
    assert (traced.low, traced.high, traced.n) == (traced.value, traced.value, 43)
    assert measured["sharpness/loss"].value == pytest.approx(F.cross_entropy(model(inputs), labels).item(), rel=1e-12)
    assert {m.n for name, m in measured.items() if name != "sharpness/trace"} == {23}

    # SAM and ASAM by hand: the weights moved in place.
    for name, scale_of, rho in (("sam", torch.ones_like, 0.05), ("asam", torch.abs, 0.5)):
        moved = copy.deepcopy(model)
        F.cross_entropy(moved(inputs), labels).backward()
        with torch.no_grad():
            length = math.sqrt(sum((scale_of(p) * p.grad).square().sum().item() for p in moved.parameters()))
            for p in moved.parameters():
                p += rho / length * scale_of(p) ** 2 * p.grad
            rise = (F.cross_entropy(moved(inputs), labels) - F.cross_entropy(model(inputs), labels)).item()
        assert measured[f"sharpness/{name}"].value == pytest.approx(rise, rel=1e-9)
    # Keskar's box reaches at least as far as its corner along the gradient's signs.
    corner = copy.deepcopy(model)
    F.cross_entropy(corner(inputs), labels).backward()
    with torch.no_grad():
        for p in corner.parameters():
            p += 1e-3 * (p.abs() + 1) * p.grad.sign()
        before, after = (F.cross_entropy(net(inputs), labels).item() for net in (model, corner))
    at_the_corner = 100 * (after - before) / (1 + before)
    assert at_the_corner * (1 - 1e-9) <= measured["sharpness/keskar"].value < 1.1 * at_the_corner


def test_float32_agrees_with_float64_within_what_it_says():
    model, data = small_net(), data_of(50)
    task = Task.classification(data, data)
    seen, exact = (
        {m.name: m for m in instrument(double=double, probes=43).conclude(state_of(model, task))}
        for double in (False, True)
    )
    for name in seen:
        assert seen[name].value == pytest.approx(exact[name].value, rel=2e-3, abs=1e-5)


def test_the_examples_are_the_same_for_every_seed_and_more_than_there_are_are_all():
    model, data = small_net(), data_of(60)
    task = Task.classification(data, data)
    few = [values(instrument(seed=seed, examples=20).conclude(state_of(model, task))) for seed in (0, 1)]
    assert few[0]["sharpness/loss"] == few[1]["sharpness/loss"]
    assert few[0]["sharpness/sam"] == few[1]["sharpness/sam"]
    assert few[0]["sharpness/lambda_max"] == pytest.approx(few[1]["sharpness/lambda_max"], rel=1e-4)
    assert few[0]["sharpness/trace"] != few[1]["sharpness/trace"]  # the probes depend on the seed

    everything = values(instrument(examples=1000).conclude(state_of(model, task)))
    assert everything["sharpness/loss"] == pytest.approx(F.cross_entropy(model(data[0]), data[1]).item(), rel=1e-6)
    assert everything["sharpness/loss"] != few[0]["sharpness/loss"]


def test_if_the_loss_is_not_finite_nothing_else_is_measured():
    model, data = small_net(), data_of(8)
    with torch.no_grad():
        model[0].bias[0] = math.nan
    seen = values(instrument().conclude(state_of(model, Task.classification(data, data))))
    assert list(seen) == ["sharpness/loss"]
    assert math.isnan(seen["sharpness/loss"])


# at matched loss


def at_losses(losses, watching):
    """The measurements of `watching` for a model whose training loss takes these values, from step 0 on."""
    data = (torch.zeros(4, 1),)
    model = torch.nn.Linear(1, 1)  # its loss is bias^2
    task = Task(train=data, val=data, loss=lambda outputs, batch: outputs[:, 0].square())
    state, seen = state_of(model, task), []
    for step, loss in enumerate(losses):
        state.step, state.examples = step, 10 * step
        with torch.no_grad():
            model.bias.fill_(math.sqrt(loss))
        seen += list(watching.measure(state))
    return seen


def test_each_level_is_measured_once_when_the_loss_first_reaches_it():
    seen = at_losses([1.0, 0.6, 0.5, 0.4, 0.7, 0.5, 0.15, 0.12], instrument(levels=[0.5, 0.2, 0.1]))
    losses = [(m.name, m.examples, round(m.value, 6)) for m in seen if m.name.endswith("/loss")]
    assert losses == [("sharpness_at_loss_0.5/loss", 20, 0.5), ("sharpness_at_loss_0.2/loss", 60, 0.15)]
    quantities = {"loss", "lambda_max", "lambda_min", "trace", "sam", "asam", "keskar"}
    for group in ("sharpness_at_loss_0.5", "sharpness_at_loss_0.2"):
        assert {m.name.split("/")[1] for m in seen if m.name.startswith(group)} == quantities
    largest = [m.value for m in seen if m.name.endswith("lambda_max")]
    assert largest == pytest.approx([2.0, 2.0])  # of bias^2


def test_a_level_that_is_skipped_or_started_below_is_not_measured():
    seen = at_losses([0.8, 0.15, 0.05], instrument(levels=[1.0, 0.5, 0.2, 0.01]))
    assert {m.name.split("/")[0] for m in seen} == {"sharpness_at_loss_0.2"}
    assert at_losses([0.8, 0.05], instrument(levels=[])) == []


def test_checks_cost_nothing_after_the_last_level():
    watching = instrument(levels=[0.5])
    at_losses([1.0, 0.4], watching)
    assert list(watching.measure(SimpleNamespace(step=5))) == []  # without a model


def test_a_level_that_was_measured_is_not_measured_again_after_resuming():
    watching = instrument(levels=[0.5, 0.2])
    at_losses([1.0, 0.4], watching)
    went_on = instrument(levels=[0.5, 0.2])
    went_on.load_state_dict(watching.state_dict())

    seen = at_losses([1.0, 0.4, 0.1], went_on)

    assert {m.name.split("/")[0] for m in seen} == {"sharpness_at_loss_0.2"}


def test_a_run_measures_at_its_levels_and_at_its_end():
    torch.manual_seed(0)
    inputs, _ = data_of(40)
    data = inputs, (inputs[:, 0] > 0).long()
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    state = state_of(model, Task.classification(data, data))
    state.step, state.budget = 0, 2000
    state.optimizer.param_groups[0]["lr"] = 0.5
    seen = list(
        train(
            state,
            Batches(data, micro_batch_sizes=[8], seed=0, total=2000),
            Eager(state.losses, state.optimizer),
            [instrument(levels=[0.4, 0.2, 1e-9])],
            learning_rate=lambda examples: 0.5,
            stopping=lambda: False,
        )
    )
    groups = list(dict.fromkeys(m.name.split("/")[0] for m in seen))
    assert groups == ["sharpness_at_loss_0.4", "sharpness_at_loss_0.2", "sharpness"]
    losses = {m.name.split("/")[0]: m.value for m in seen if m.name.endswith("/loss")}
    assert 0.2 < losses["sharpness_at_loss_0.4"] <= 0.4
    assert all(m.examples == 2000 for m in seen if m.name.startswith("sharpness/"))


# what it refuses, and what it tolerates


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"examples": 0}, "sharpness.examples=0 is invalid: it must be an integer of at least 1"),
        ({"chunk": 2.5}, "sharpness.chunk=2.5"),
        ({"every": True}, "sharpness.every=True"),
        ({"products": 2}, "sharpness.products=2 is invalid: it must be an integer of at least 3"),
        ({"probes": 1}, "sharpness.probes=1 is invalid: it must be an integer of at least 2"),
        ({"tolerance": 0}, "sharpness.tolerance=0 is invalid: it must be a number above 0"),
        ({"rho": math.nan}, "sharpness.rho=nan"),
        ({"asam_rho": "x"}, "sharpness.asam_rho=x"),
        ({"levels": 0.5}, r"sharpness.levels=0.5 is invalid: .* such as \[0.5,0.2,0.1\], or \[\] for none"),
        ({"levels": [0.5, -1]}, "sharpness.levels"),
        ({"double": 1}, "sharpness.double=1 is invalid: it must be true or false"),
    ],
)
def test_an_invalid_option_is_refused(options, message):
    with pytest.raises(BadRequest, match=message):
        instrument(**options)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.exp()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient


def at_the_start(model, **options):
    data = data_of(9)
    state = state_of(model, Task.classification(data, data, **options))
    state.step = 0
    return list(instrument(chunk=4).measure(state))


def test_a_model_that_cannot_be_differentiated_twice_is_refused_before_it_is_trained():
    class Net(torch.nn.Linear):
        def forward(self, x):
            return Once.apply(super().forward(x))

    with pytest.raises(
        BadRequest, match=r"which this model does not support: .*once_differentiable.*~instruments.sharpness"
    ):
        at_the_start(Net(4, 3))


def test_an_error_of_the_users_own_is_left_as_it_is():
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        at_the_start(torch.nn.Linear(5, 3))


def crowded(most):
    """A forward pass that fits at most `most` examples at once when gradients are enabled."""

    def forward(model, batch):
        if len(batch[0]) > most and torch.is_grad_enabled():
            raise torch.OutOfMemoryError(f"CUDA out of memory for {len(batch[0])}")
        return model(batch[0])

    return forward


def test_pieces_that_do_not_fit_are_halved():
    data, model = data_of(23), small_net()
    fits, crowds = (
        values(instrument(chunk=16, products=10).conclude(state_of(model, Task.classification(data, data, **rest))))
        for rest in ({}, {"forward": crowded(3)})
    )
    assert crowds == pytest.approx(fits, rel=1e-3, abs=1e-6)


class Crowding(torch.autograd.Function):
    """The identity; runs out of memory when it is differentiated for the `times`-th time."""

    @staticmethod
    def forward(ctx, x, times):
        ctx.times = times
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        if ctx.times == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Crowding.apply(gradient, ctx.times - 1), None


@pytest.mark.parametrize("times", [1, 2])
def test_out_of_memory_is_left_to_the_loop_and_not_taken_for_an_unsupported_model(times):
    with pytest.raises(torch.OutOfMemoryError):
        at_the_start(small_net(), forward=lambda model, batch: Crowding.apply(model(batch[0]), times))


def test_out_of_memory_at_the_end_is_left_to_the_loop_as_well():
    data = data_of(9)
    state = state_of(small_net(), Task.classification(data, data, forward=crowded(0)))
    with pytest.raises(torch.OutOfMemoryError):
        list(instrument().conclude(state))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_leaves_no_trace(precision):
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(6, 3)
    )
    data = data_of(20)
    state = state_of(model, Task.classification(data, data), precision=precision)
    model.train()
    F.cross_entropy(model(data[0]), data[1]).backward()
    state.optimizer.step()
    gradients = [p.grad for p in model.parameters()]
    before = copy.deepcopy((model.state_dict(), state.optimizer.state_dict(), gradients)), torch.get_rng_state()

    list(instrument().conclude(state))

    (weights, optimizer, old), streams = before
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert state.optimizer.state_dict() == optimizer
    assert [p.grad for p in model.parameters()] == gradients  # the same tensors,
    assert all(torch.equal(a, b) for a, b in zip(gradients, old, strict=True))  # with the same values
    assert torch.equal(torch.get_rng_state(), streams)
    assert all(module.training for module in model.modules())
