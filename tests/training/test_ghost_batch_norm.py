"""Ghost BatchNorm is BatchNorm over groups of fixed size: compared with hand computation and with accumulation."""

import copy

import pytest
import torch
import torch.nn.functional as F
from plain_defaults import configured, read
from torch import nn

from batchlab import BadRequest, Task
from batchlab.training import assembly
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.ghost_batch_norm import GhostBatchNorm, give_ghosts

CPU = CpuDevice()


def drawn(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def layer(shape, ghost_batch=None, **settings):
    """A BatchNorm for inputs of `shape`, with a non-trivial scale and shift."""
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(shape)]
    norm = kind(shape[1], **settings).double()
    if norm.affine:
        nn.init.constant_(norm.weight, 1.5)
        nn.init.constant_(norm.bias, -0.5)
    if ghost_batch is not None:
        give_ghosts(norm, ghost_batch)
    return norm


def normalised(rows, eps=1e-5):
    """By hand: each channel of `rows` with mean 0 and variance 1, then the scale and the shift of `layer`."""
    around = [axis for axis in range(rows.dim()) if axis != 1]
    mean, variance = rows.mean(around, keepdim=True), rows.var(around, correction=0, keepdim=True)
    return 1.5 * (rows - mean) / (variance + eps) ** 0.5 - 0.5


SHAPES = [(12, 3), (12, 3, 5), (12, 3, 2, 2), (12, 3, 2, 1, 2)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("ghost_batch", "groups"), [(4, [4, 4, 4]), (5, [5, 5, 2]), (7, [7, 5]), (11, None), (20, [12])]
)
def test_each_ghost_is_normalised_separately(shape, ghost_batch, groups):
    x = drawn(*shape)
    if groups is None:  # a single row with one value per channel has no variance, and is merged with the others
        groups = [12] if len(shape) == 2 else [11, 1]

    seen = layer(shape, ghost_batch)(x)

    expected = torch.cat([normalised(rows) for rows in x.split(groups)])
    assert torch.allclose(seen, expected, rtol=0, atol=1e-12)


def test_a_lone_last_row_joins_the_ghost_before_it_and_no_other():
    x = drawn(9, 3)

    seen = layer(x.shape, 4)(x)

    assert torch.allclose(seen, torch.cat([normalised(x[:4]), normalised(x[4:])]), rtol=0, atol=1e-12)


def test_running_statistics_move_once_for_each_ghost():
    x = drawn(10, 3)
    norm = layer(x.shape, 4, momentum=0.1)

    norm(x)

    # Hoffer et al. 2017, algorithm 1: the old one decays by 0.9 for each ghost, the last ghost weighs most.
    mean, variance = torch.zeros(3).double(), torch.ones(3).double()
    for rows in (x[:4], x[4:8], x[8:]):
        mean = 0.9 * mean + 0.1 * rows.mean(0)
        variance = 0.9 * variance + 0.1 * rows.var(0, correction=1)
    assert torch.allclose(norm.running_mean, mean, rtol=0, atol=1e-12)
    assert torch.allclose(norm.running_var, variance, rtol=0, atol=1e-12)
    assert int(norm.num_batches_tracked) == 3


def test_a_running_average_without_momentum_is_that_of_all_ghosts():
    x = drawn(9, 3)
    norm = layer(x.shape, 3, momentum=None)

    norm(x)

    assert torch.allclose(norm.running_mean, torch.stack([g.mean(0) for g in x.split(3)]).mean(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_in_eval_mode_it_is_plain_batch_norm(shape):
    x, plain, ghost = drawn(*shape), layer(shape), layer(shape, 4)
    for norm in (plain, ghost):
        norm.running_mean.fill_(0.3)
        norm.running_var.fill_(2.0)

    assert torch.equal(ghost.eval()(x), plain.eval()(x))
    assert torch.equal(ghost.running_mean, plain.running_mean)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("ghost_batch", [12, 13, 100])
def test_a_ghost_that_holds_the_whole_batch_is_plain_batch_norm_to_the_bit(shape, ghost_batch):
    x, plain, ghost = drawn(*shape), layer(shape), layer(shape, ghost_batch)

    assert torch.equal(ghost(x), plain(x))
    assert torch.equal(ghost.running_var, plain.running_var)
    assert torch.equal(ghost.num_batches_tracked, plain.num_batches_tracked)


def test_without_running_statistics_ghosts_are_taken_in_eval_mode_too():
    x = drawn(12, 3)

    seen = layer(x.shape, 4, track_running_stats=False).eval()(x)

    assert torch.allclose(seen, torch.cat([normalised(rows) for rows in x.split(4)]), rtol=0, atol=1e-12)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(36, 8),
        nn.BatchNorm1d(8),
        nn.Tanh(),
        nn.Linear(8, 3),
    ).double()


def test_the_gradient_is_that_of_accumulating_over_chunks_with_plain_batch_norm():
    """Hoffer's second implementation (`main_gbn.py`): a loop over chunks."""
    images, labels = drawn(22, 1, 5, 5), torch.arange(22) % 3
    chunked, ghostly = network(), network()
    give_ghosts(ghostly, 8)
    for x, y in zip(images.split(8), labels.split(8), strict=True):
        F.cross_entropy(chunked(x), y, reduction="sum").div(22).backward()

    F.cross_entropy(ghostly(images), labels).backward()

    for p, q in zip(ghostly.parameters(), chunked.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=0, atol=1e-12 * float(q.grad.abs().max() + 1))
    for a, b in zip(ghostly.buffers(), chunked.buffers(), strict=True):
        assert torch.equal(a, b)


def test_ghosts_change_the_gradient_of_the_whole_batch():
    """Otherwise the test above would show nothing."""
    images, labels = drawn(22, 1, 5, 5), torch.arange(22) % 3
    plain, ghostly = network(), network()
    give_ghosts(ghostly, 8)
    for model in (plain, ghostly):
        F.cross_entropy(model(images), labels).backward()
    one, other = (torch.cat([p.grad.flatten() for p in model.parameters()]) for model in (plain, ghostly))

    assert (one - other).norm() / one.norm() > 1e-2


class Activated(nn.BatchNorm2d):
    """A user's own BatchNorm, with its own forward."""

    def forward(self, x):
        return super().forward(x).relu()


def test_a_users_own_batch_norm_keeps_what_it_does():
    x, norm = drawn(12, 3, 2, 2), Activated(3).double()
    give_ghosts(norm, 4)

    assert torch.allclose(
        norm(x), torch.cat([F.batch_norm(rows, None, None, training=True).relu() for rows in x.split(4)]), atol=1e-12
    )
    assert isinstance(norm, Activated)
    assert isinstance(norm, GhostBatchNorm)
    assert type(norm).__name__ == "GhostActivated"


def test_state_dict_weights_and_copies_stay_what_they_were():
    plain, ghostly = network(), network()
    give_ghosts(ghostly, 8)

    assert list(ghostly.state_dict()) == list(plain.state_dict())
    assert all(
        torch.equal(a, b) for a, b in zip(ghostly.state_dict().values(), plain.state_dict().values(), strict=True)
    )
    x = drawn(22, 1, 5, 5)
    assert torch.equal(copy.deepcopy(ghostly)(x), ghostly(x))


def test_per_example_gradients_of_torch_func_pass_in_eval_mode():
    model, x = network().eval(), drawn(6, 1, 5, 5)
    give_ghosts(model, 2)
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters, image):
        return torch.func.functional_call(model, parameters, (image.unsqueeze(0),)).square().sum()

    seen = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)

    for i in range(len(x)):
        alone = torch.autograd.grad(model(x[i : i + 1]).square().sum(), list(model.parameters()))
        for name, gradient in zip(parameters, alone, strict=True):
            assert torch.allclose(seen[name][i], gradient, atol=1e-10)


def test_it_passes_in_bf16():
    model, x = network().float(), drawn(20, 1, 5, 5, dtype=torch.float32)
    give_ghosts(model, 8)
    exact = model(x)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        seen = model(x)
        seen.float().sum().backward()

    assert seen.dtype == torch.bfloat16
    assert float((seen - exact).abs().max().detach()) < 0.05 * float(exact.abs().max().detach())


@pytest.mark.parametrize(
    ("ghost_batch", "model", "message"),
    [
        (
            0,
            nn.BatchNorm1d(3),
            r"^model\.ghost_batch=0 is invalid: it is a number of examples, such as model.ghost_batch",
        ),
        (2.0, nn.BatchNorm1d(3), r"^model\.ghost_batch=2\.0 is invalid"),
        (True, nn.BatchNorm1d(3), r"^model\.ghost_batch=True is invalid"),
        ("8", nn.BatchNorm1d(3), r"^model\.ghost_batch=8 is invalid"),
        (
            8,
            nn.Linear(3, 3),
            r"^model\.ghost_batch=8 has no effect, because .* no BatchNorm layer: use model\.ghost_batch=null",
        ),
        (8, nn.InstanceNorm2d(3), "has no BatchNorm layer"),
    ],
)
def test_invalid_options_are_refused(ghost_batch, model, message):
    with pytest.raises(BadRequest, match=message):
        give_ghosts(model, ghost_batch)


def test_ghosts_of_one_value_per_channel_are_refused_and_ghosts_of_one_image_are_not():
    with pytest.raises(BadRequest, match=r"^model\.ghost_batch=1 gives BatchNorm only one value per channel"):
        layer((4, 3), 1)(drawn(4, 3))
    layer((4, 3), 1).eval()(drawn(4, 3))  # nothing is divided in eval mode

    x = drawn(4, 3, 2, 2)
    seen = layer(x.shape, 1)(x)
    assert torch.allclose(seen, torch.cat([normalised(image) for image in x.split(1)]), rtol=0, atol=1e-12)


def built(**keys):
    config = configured(device="cpu", model=read("model/cnn.yaml") | keys)
    images = drawn(8, 1, 8, 8), torch.arange(8) % 2
    return assembly.build_model(config, Task.classification(images, images), CPU)


class OwnGhosts(nn.Module):
    def __init__(self, ghost_batch=4):
        super().__init__()


def test_a_factory_with_its_own_ghost_batch_is_refused():
    with pytest.raises(BadRequest, match=r"^model\.ghost_batch=8 is batchlab's own option.*rename that parameter"):
        built(_target_=f"{__name__}.OwnGhosts", ghost_batch=8)


def test_the_option_is_not_passed_to_the_factory_and_weights_do_not_change():
    plain, ghostly = built(ghost_batch=None), built(ghost_batch=4)

    assert [type(m).__name__ for m in ghostly.modules()].count("GhostBatchNorm2d") == 2
    assert all(m.ghost_batch == 4 for m in ghostly.modules() if isinstance(m, GhostBatchNorm))
    assert not any(isinstance(m, GhostBatchNorm) for m in plain.modules())
    assert all(
        torch.equal(a, b) for a, b in zip(plain.state_dict().values(), ghostly.state_dict().values(), strict=True)
    )
    with pytest.raises(BadRequest, match="no BatchNorm layer"):
        built(ghost_batch=4, batch_norm=False)
