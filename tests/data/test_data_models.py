"""The data and the models that ship with batchlab, which must fulfil the same contract as a user's own."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from plain_defaults import read
from sklearn.datasets import load_digits
from torch import Tensor, nn

from batchlab import BadRequest, Task, targets
from batchlab.data import digits, synthetic
from batchlab.models.cnn import CNN
from batchlab.models.mlp import MLP

SMALL: dict[str, Any] = {"train_size": 200, "val_size": 50, "features": 6, "classes": 4, "label_noise": 0.0}
# The first labels of the split in the first version.
FIRST_VALIDATION_LABELS = [1, 1, 0, 9, 8, 0, 3, 3, 4, 7, 6, 6]
FIRST_TRAINING_LABELS = [8, 1, 6, 4, 3, 1, 1, 5, 5, 2, 1, 6]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On busy cores two threads spend most of their time waiting for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def accuracy_after(task: Task, model: nn.Module, *, epochs: int, lr: float, batch_size: int = 32) -> float:
    """The validation accuracy after plain SGD with momentum in ten lines, without batchlab's loop."""
    inputs, labels = task.train
    generator = torch.Generator().manual_seed(0)
    parameters = list(model.parameters())
    momenta = [torch.zeros_like(p) for p in parameters]
    for rows in (
        rows for _ in range(epochs) for rows in torch.randperm(len(inputs), generator=generator).split(batch_size)
    ):
        gradients = torch.autograd.grad(F.cross_entropy(model(inputs[rows]), labels[rows]), parameters)
        with torch.no_grad():
            for p, gradient, momentum in zip(parameters, gradients, momenta, strict=True):
                p -= lr * momentum.mul_(0.9).add_(gradient)
    model.eval()
    return float((model(task.val[0]).argmax(dim=1) == task.val[1]).float().mean())


def rows_of(images: Tensor, labels: Tensor) -> list[tuple[float, ...]]:
    return [(*image.flatten().tolist(), float(label)) for image, label in zip(images, labels, strict=True)]


# The digits


def test_the_digits_are_sklearns_each_once_scaled_to_one() -> None:
    task = digits.load()
    original = load_digits()

    assert [len(part[0]) for part in (task.train, task.val)] == [1437, 360]
    assert (task.train[0].dtype, task.train[1].dtype) == (torch.float32, torch.int64)
    assert task.train[0].shape[1:] == (1, 8, 8)
    assert (float(task.train[0].min()), float(task.train[0].max())) == (0.0, 1.0)
    expected = [
        (*(image.flatten() / 16).tolist(), float(label))
        for image, label in zip(original.images, original.target, strict=True)
    ]
    assert sorted(rows_of(*task.train) + rows_of(*task.val)) == sorted(expected)
    assert task.model_args == {"num_classes": 10, "input_shape": (1, 8, 8)}


def test_every_digit_is_in_training_and_in_validation() -> None:
    task = digits.load()

    assert torch.bincount(task.train[1]).min() > 100
    assert torch.bincount(task.val[1]).min() > 20


def test_the_split_does_not_change_from_one_version_to_the_next() -> None:
    """Otherwise losses of two versions would be on different validation sets."""
    task = digits.load()

    assert task.val[1][:12].tolist() == FIRST_VALIDATION_LABELS
    assert task.train[1][:12].tolist() == FIRST_TRAINING_LABELS


@pytest.mark.parametrize(
    "load", [lambda: digits.load(label_noise=0.3), lambda: synthetic.load(**SMALL | {"label_noise": 0.3})]
)
def test_data_is_the_same_at_every_seed_of_a_run_and_draws_from_no_global_state(load: Any) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    first = load()
    torch.manual_seed(2)
    np.random.seed(2)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()

    second = load()

    for one, two in zip(
        (*first.train, *first.val, first.corrupted), (*second.train, *second.val, second.corrupted), strict=True
    ):
        assert torch.equal(one, two)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state[1])


@pytest.mark.parametrize("train_size", [1, 5, 100, 1437])
def test_a_smaller_training_set_is_the_beginning_of_the_whole_one(train_size: int) -> None:
    small, whole = digits.load(train_size=train_size), digits.load()

    assert torch.equal(small.train[0], whole.train[0][:train_size])
    assert torch.equal(small.train[1], whole.train[1][:train_size])
    assert torch.equal(small.val[0], whole.val[0])
    assert small.model_args["num_classes"] == 10


def test_tensors_hold_no_more_memory_than_they_show() -> None:
    for tensor in (*digits.load(train_size=10).train, *digits.load().val):
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


@pytest.mark.parametrize("train_size", [0, -1, 1438, 10**20, 8.5, 100.0, "100", True, math.nan])
def test_a_training_set_of_another_size_is_refused(train_size: Any) -> None:
    with pytest.raises(BadRequest, match=r"^data\.train_size=.* is invalid: .*1437.* use data\.train_size=") as caught:
        digits.load(train_size=train_size)

    assert str(caught.value).isprintable()


# Wrong labels


@pytest.mark.parametrize(
    ("share", "train_size", "wrong"),
    [(0.0, 1437, 0), (0.2, 1437, 287), (0.2, 10, 2), (0.99, 100, 99), (0.04, 10, 0), (0.06, 10, 1)],
)
def test_the_requested_share_of_labels_is_wrong_and_marked(share: float, train_size: int, wrong: int) -> None:
    right, task = digits.load(train_size=train_size), digits.load(train_size=train_size, label_noise=share)

    differs = right.train[1] != task.train[1]

    assert task.corrupted is not None
    assert int(differs.sum()) == wrong
    assert torch.equal(differs, task.corrupted)
    assert torch.equal(task.uncorrupted[1], right.train[1])
    assert torch.equal(right.train[0], task.train[0])
    assert torch.equal(right.val[1], task.val[1])


def test_wrong_labels_are_spread_over_all_classes() -> None:
    right, task = digits.load(), digits.load(label_noise=0.9)
    shift = (task.train[1] - right.train[1])[right.train[1] != task.train[1]] % 10

    counts = torch.bincount(shift, minlength=10).double()[1:]

    # Nine shifts, equally likely: chi-squared with 8 degrees of freedom is below 26.1 in 999 of 1000 draws.
    expected = counts.sum() / 9
    assert int(task.train[1].min()) == 0
    assert int(task.train[1].max()) == 9
    assert float(((counts - expected) ** 2 / expected).sum()) < 26.1


@pytest.mark.parametrize(
    "load",
    [lambda share: digits.load(label_noise=share), lambda share: synthetic.load(**SMALL | {"label_noise": share})],
)
def test_what_is_wrong_at_a_small_share_is_wrong_in_the_same_way_at_a_large_one(load: Any) -> None:
    small, large = load(0.1), load(0.4)

    assert bool((large.corrupted | ~small.corrupted).all())
    assert torch.equal(small.train[1][small.corrupted], large.train[1][small.corrupted])
    for task in (small, large):
        assert torch.equal(task.uncorrupted[1] != task.train[1], task.corrupted)
        assert task.uncorrupted[0] is task.train[0]  # not copied


@pytest.mark.parametrize("share", [-0.1, 1, 1.0, 1.5, math.nan, math.inf, "0.1", True, None])
@pytest.mark.parametrize(
    "load", [digits.load, lambda label_noise: synthetic.load(**SMALL | {"label_noise": label_noise})]
)
def test_an_invalid_share_is_refused(load: Any, share: Any) -> None:
    with pytest.raises(BadRequest, match=r"^data\.label_noise=.* is invalid: .*such as data\.label_noise=0\.2"):
        load(label_noise=share)


# The synthetic data


def test_synthetic_data_has_the_requested_sizes() -> None:
    task = synthetic.load(**SMALL)

    assert [tuple(t.shape) for t in (*task.train, *task.val)] == [(200, 6), (200,), (50, 6), (50,)]
    assert task.model_args == {"num_classes": 4, "input_shape": (6,)}
    assert not set(rows_of(*task.train)) & set(rows_of(*task.val))


def test_a_class_without_examples_is_still_offered_to_the_model() -> None:
    assert synthetic.load(**SMALL | {"train_size": 3, "val_size": 3, "classes": 50}).model_args["num_classes"] == 50


def test_training_and_validation_have_the_same_teacher() -> None:
    """The nearest neighbour among many examples usually has the same class, which another teacher would not give."""
    task = synthetic.load(**SMALL | {"train_size": 4000, "val_size": 300})

    nearest = torch.cdist(task.val[0], task.train[0]).argmin(dim=1)

    assert float((task.train[1][nearest] == task.val[1]).float().mean()) > 0.6  # chance: 0.25 to 0.4


@pytest.mark.parametrize(("name", "least"), [("train_size", 1), ("val_size", 1), ("features", 1), ("classes", 2)])
@pytest.mark.parametrize("value", [0, -3, 2.0, "8", True, None])
def test_sizes_of_synthetic_data_are_whole_numbers(name: str, least: int, value: Any) -> None:
    with pytest.raises(BadRequest, match=rf"^data\.{name}=.* is invalid: give an integer of at least {least}"):
        synthetic.load(**SMALL | {name: value})


# The models


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 32, 32), (2, 5, 7), (1, 4, 4)])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_models_map_images_to_logits(shape: tuple[int, ...], batch_norm: bool) -> None:
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))

    for model in (
        MLP(shape, 7, width=5, depth=2, batch_norm=batch_norm),
        CNN(shape, 7, width=3, batch_norm=batch_norm),
    ):
        logits = model(images)
        logits.sum().backward()

        assert logits.shape == (2, 7)
        assert all(p.grad is not None for p in model.parameters())


def numbers_in(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_models_have_the_number_of_parameters_counted_by_hand() -> None:
    # The layers' weights and biases; with BatchNorm, a scale and a shift per unit replace the bias.
    assert numbers_in(MLP((1, 8, 8), 10, width=128, depth=2)) == 64 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10
    assert numbers_in(MLP((1, 8, 8), 10, width=4, depth=1, batch_norm=True)) == 64 * 4 + 2 * 4 + 4 * 10 + 10
    assert numbers_in(MLP((1, 8, 8), 10, width=128, depth=0)) == 64 * 10 + 10
    convolutions = 9 * 1 * 16 + 9 * 16 * 32
    assert numbers_in(CNN((1, 8, 8), 10, width=16, batch_norm=False)) == convolutions + 16 + 32 + 32 * 2 * 2 * 10 + 10
    assert numbers_in(CNN((1, 8, 8), 10, width=16)) == convolutions + 2 * 16 + 2 * 32 + 32 * 2 * 2 * 10 + 10


def kinds(model: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, kind)]


def test_batch_norm_and_dropout_are_there_only_when_requested() -> None:
    plain, both = MLP((4,), 2, width=3, depth=2), MLP((4,), 2, width=3, depth=2, batch_norm=True, dropout=0.25)

    assert (len(kinds(plain, nn.BatchNorm1d)), len(kinds(plain, nn.Dropout)), list(plain.buffers())) == (0, 0, [])
    assert (len(kinds(both, nn.BatchNorm1d)), len(kinds(both, nn.Dropout))) == (2, 2)
    assert [dropout.p for dropout in kinds(both, nn.Dropout) if isinstance(dropout, nn.Dropout)] == [0.25, 0.25]
    assert len(kinds(CNN((1, 8, 8), 2, width=3), nn.BatchNorm2d)) == 2
    assert list(CNN((1, 8, 8), 2, width=3, batch_norm=False).buffers()) == []


@pytest.mark.parametrize(("activation", "by_hand"), [("relu", lambda z: max(z, 0)), ("tanh", math.tanh)])
def test_each_activation_is_the_named_function(activation: str, by_hand: Callable[[float], float]) -> None:
    model = MLP((1,), 1, width=1, depth=1, activation=activation)
    for p, value in zip(model.parameters(), (2.0, 0.5, 3.0, 1.0), strict=True):
        nn.init.constant_(p, value)

    for x in (-1.0, 0.3):
        assert model(torch.tensor([[x]])).item() == pytest.approx(3 * by_hand(2 * x + 0.5) + 1)


def test_a_model_with_hidden_layers_is_not_linear_and_one_without_is() -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))

    def bends(model: nn.Module) -> float:
        return float((model(x) + model(-x) - 2 * model(0 * x)).abs().max().detach())

    assert bends(MLP((4,), 2, width=8, depth=0)) < 1e-5
    assert bends(MLP((4,), 2, width=8, depth=1)) > 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, r"^model\.width=0 is invalid: it must be an integer of at least 1"),
        ({"width": 8.0}, r"^model\.width=8\.0 is invalid"),
        ({"depth": -1}, r"^model\.depth=-1 is invalid: it must be an integer of at least 0"),
        ({"depth": True}, r"^model\.depth=True is invalid"),
        ({"activation": "swish"}, r"^model\.activation=swish is unknown: use one of gelu, relu, tanh"),
        (
            {"dropout": 1.0},
            r"^model\.dropout=1\.0 is invalid: it must be from 0 to below 1, such as model\.dropout=0\.1",
        ),
        ({"dropout": -0.1}, r"^model\.dropout=-0\.1 is invalid"),
        ({"dropout": math.nan}, r"^model\.dropout=nan is invalid"),
    ],
)
def test_an_invalid_mlp_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        MLP(**{"input_shape": (4,), "num_classes": 2, "width": 3, "depth": 1} | changes)


@pytest.mark.parametrize("shape", [(64,), (8, 8), (1, 3, 8), (1, 8, 3), (1, 1, 8, 8)])
def test_a_cnn_on_data_without_images_is_refused_with_what_to_use_instead(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadRequest, match=r"examples have shape \(.*\): use model=mlp"):
        CNN(shape, 2, width=3)


@pytest.mark.parametrize("width", [0, 2.0, True])
def test_a_cnn_without_channels_is_refused(width: Any) -> None:
    with pytest.raises(BadRequest, match=r"^model\.width=.* is invalid: it must be an integer of at least 1"):
        CNN((1, 8, 8), 2, width=width)


# Together


@pytest.mark.parametrize(("data", "model"), [("digits", "mlp"), ("digits", "cnn"), ("synthetic", "mlp")])
def test_the_shipped_configs_build_and_can_be_learnt(data: str, model: str) -> None:
    task = targets.build(read(f"data/{data}.yaml"), Task, what="data", offered={"device": torch.device("cpu")})
    torch.manual_seed(0)
    offered = {**task.model_args, "task": task, "device": torch.device("cpu")}
    keys = read(f"model/{model}.yaml")
    keys.pop("ghost_batch")  # batchlab's own key, not the factory's
    net = targets.build(keys, nn.Module, what="model", offered=offered)

    reached = accuracy_after(task, net, epochs=6, lr=0.02)

    assert reached > {"digits": 0.9, "synthetic": 0.6}[data]  # chance is 0.1, and the largest class 0.15


def test_a_network_does_not_learn_labels_that_are_all_wrong() -> None:
    """Otherwise the accuracies above would show little about the labels."""
    task = digits.load(label_noise=0.99)
    torch.manual_seed(0)

    assert accuracy_after(task, MLP((1, 8, 8), 10, width=32, depth=1), epochs=3, lr=0.02) < 0.3
