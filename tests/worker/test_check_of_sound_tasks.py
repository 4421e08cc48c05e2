"""`batchlab check` finds nothing wrong with tasks that are unusual and right."""

import sys
from collections.abc import Callable

import pytest
import torch
from plain_defaults import configured
from torch import Tensor, nn
from torch.nn import functional as F

from batchlab import Task
from batchlab.training.updates.optimizer import build_optimizer, peak_lr
from batchlab.worker.check.examination import examine
from batchlab.worker.check.findings import Checkup, Level

HERE = __name__
Maker = Callable[[], tuple[Task, nn.Module]]
TARGETS = {"a_density": {"metric": "val/loss", "value": -0.5}}
MAKERS: dict[str, Maker] = {}


def sound(make: Maker) -> Maker:
    MAKERS[make.__name__] = make
    return make


def data(name: str) -> Task:
    torch.manual_seed(0)
    return MAKERS[name]()[0]


def net(name: str) -> nn.Module:
    torch.manual_seed(0)
    return MAKERS[name]()[1]


def points(n: int = 96) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(0))


def classes() -> Tensor:
    return (points()[:, 0] > 0.3).long()


def task(*columns: Tensor, **fields: object) -> Task:
    return Task(train=columns, val=columns, **fields)  # type: ignore[arg-type]


def layers(*last: nn.Module, outputs: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, outputs), *last)


@sound
def masked_targets() -> tuple[Task, nn.Module]:
    """Targets that are nan where they are missing, which the loss masks."""
    targets = points()[:, :1].clone()
    targets[::3] = float("nan")

    def loss(outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        known = ~batch[1].isnan()
        return (outputs[known] - batch[1][known]).square()

    return task(points(), targets, loss=loss, count=lambda b: (~b[1].isnan()).sum()), layers(outputs=1)


@sound
def masked_mean() -> tuple[Task, nn.Module]:
    """The same as a mean."""
    targets = points()[:, :1].clone()
    targets[::3] = float("nan")

    def loss(outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        known = ~batch[1].isnan()
        return (outputs[known] - batch[1][known]).square().mean()

    return task(points(), targets, loss=loss, count=lambda b: (~b[1].isnan()).sum()), layers(outputs=1)


@sound
def contrastive() -> tuple[Task, nn.Module]:
    """A loss of all pairs in the batch, with two views joined in forward."""

    def forward(model: nn.Module, batch: tuple[Tensor]) -> tuple[Tensor, Tensor]:
        one, other = F.normalize(model(torch.cat([batch[0], batch[0] + 0.1]))).chunk(2)
        return one, other

    def loss(outputs: tuple[Tensor, Tensor], batch: tuple[Tensor]) -> Tensor:
        return F.cross_entropy(outputs[0] @ outputs[1].T / 0.1, torch.arange(len(batch[0])))

    def retrieved(outputs: tuple[Tensor, Tensor], batch: tuple[Tensor]) -> dict[str, Tensor]:
        return {"top1": ((outputs[0] @ outputs[1].T).argmax(1) == torch.arange(len(batch[0]))).float()}

    fields = {"metrics": retrieved, "higher_is_better": {"top1": True}}
    return task(points(), forward=forward, loss=loss, reduction="batch", **fields), layers()


class Experts(nn.Module):
    """Two experts, and a loss that balances their load over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.experts = nn.Linear(4, 2), nn.ModuleList([nn.Linear(4, 3), nn.Linear(4, 3)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        gates = self.router(x).softmax(1)
        mixed = sum(gates[:, i : i + 1] * expert(x) for i, expert in enumerate(self.experts))
        self.balance = gates.mean(0).square().sum()
        return mixed, self.balance


@sound
def mixture_of_experts() -> tuple[Task, nn.Module]:
    loss = lambda out, batch: F.cross_entropy(out[0], batch[1], reduction="none") + 0.1 * out[1]  # noqa: E731
    return task(points(), classes(), loss=loss), Experts()


@sound
def mean_of_a_mixture_of_experts() -> tuple[Task, nn.Module]:
    loss = lambda out, batch: F.cross_entropy(out[0], batch[1]) + 0.1 * out[1]  # noqa: E731
    return task(points(), classes(), loss=loss), Experts()


@sound
def balance_kept_in_the_model() -> tuple[Task, nn.Module]:
    """The auxiliary loss is an attribute of the model, as in many such models."""

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0])[0], batch[1], reduction="none") + 0.1 * model.balance

    return task(points(), classes(), training_loss=loss), Experts()


class Waves(nn.Module):
    """Complex weights."""

    def __init__(self, dtype: torch.dtype = torch.complex64) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return (x.to(self.weight.dtype) @ self.weight).abs()


@sound
def complex_weights() -> tuple[Task, nn.Module]:
    return Task.classification((points(), classes()), (points(), classes())), Waves()


@sound
def wide_complex_weights() -> tuple[Task, nn.Module]:
    wide = points().double(), classes()
    return Task.classification(wide, wide), Waves(torch.complex128)


@sound
def float64() -> tuple[Task, nn.Module]:
    wide = points().double(), points()[:, :1].double()
    return Task.regression(wide, wide), layers(outputs=1).double()


@sound
def a_mean() -> tuple[Task, nn.Module]:
    return task(points(), classes(), loss=lambda o, b: F.cross_entropy(o, b[1])), layers()


@sound
def a_sum() -> tuple[Task, nn.Module]:
    loss = lambda o, b: F.cross_entropy(o, b[1], reduction="sum")  # noqa: E731
    return task(points(), classes(), loss=loss, reduction="sum"), layers()


@sound
def class_weights() -> tuple[Task, nn.Module]:
    weights = torch.tensor([1.0, 3.0, 1.0])
    loss = lambda o, b: F.cross_entropy(o, b[1], weights, reduction="none")  # noqa: E731
    return task(points(), classes(), loss=loss, count=lambda b: weights[b[1]].sum()), layers()


@sound
def log_probabilities() -> tuple[Task, nn.Module]:
    loss = lambda o, b: F.nll_loss(o, b[1], reduction="none")  # noqa: E731
    return task(points(), classes(), loss=loss), layers(nn.LogSoftmax(1))


@sound
def log_probabilities_twice() -> tuple[Task, nn.Module]:
    """`cross_entropy` changes nothing about log-probabilities."""
    return Task.classification((points(), classes()), (points(), classes())), layers(nn.LogSoftmax(1))


@sound
def probabilities_and_their_own_loss() -> tuple[Task, nn.Module]:
    loss = lambda o, b: (o - F.one_hot(b[1], 3)).square().sum(1)  # noqa: E731
    return task(points(), classes(), loss=loss), layers(nn.Softmax(1))


@sound
def a_sigmoid_and_its_own_loss() -> tuple[Task, nn.Module]:
    loss = lambda o, b: F.binary_cross_entropy(o[:, 0], b[1].float(), reduction="none")  # noqa: E731
    return task(points(), classes(), loss=loss), layers(nn.Sigmoid(), outputs=1)


@sound
def an_image_of_a_sigmoid() -> tuple[Task, nn.Module]:
    loss = lambda o, b: (o - b[0].sigmoid()).square().mean(1)  # noqa: E731
    return task(points(), loss=loss), layers(nn.Sigmoid(), outputs=4)


@sound
def a_density() -> tuple[Task, nn.Module]:
    """Its loss falls below 0, and so may a target."""
    loss = lambda o, b: F.gaussian_nll_loss(o[:, 0], b[0][:, 0], o[:, 1].exp(), reduction="none")  # noqa: E731
    return task(points(), loss=loss), layers(outputs=2)


class Autoencoder(nn.Module):
    """It draws random numbers in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(4, 2), nn.Linear(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        code = self.encoder(x)
        return self.decoder(code + 0.1 * torch.randn_like(code))


@sound
def random_in_eval_mode() -> tuple[Task, nn.Module]:
    return task(points(), loss=lambda o, b: (o - b[0]).square().mean(1)), Autoencoder()


@sound
def dropout() -> tuple[Task, nn.Module]:
    return Task.classification((points(), classes()), (points(), classes())), layers(nn.Dropout(0.5))


@sound
def derivatives() -> tuple[Task, nn.Module]:
    """A differential equation: the gradient with respect to the inputs is part of the loss."""

    def loss(model: nn.Module, batch: tuple[Tensor]) -> Tensor:
        with torch.enable_grad():
            x = batch[0].detach().requires_grad_()
            slope = torch.autograd.grad(model(x).sum(), x, create_graph=True)[0]
        return (slope[:, 0] - 1).square()

    return task(points(), training_loss=loss), layers(outputs=1)


class Heated(nn.Module):
    """A loss with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.heat = nn.Parameter(torch.ones(()))

    def forward(self, outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(outputs * self.heat, batch[1], reduction="none")


@sound
def a_parameter_of_the_loss() -> tuple[Task, nn.Module]:
    return task(points(), classes(), loss=Heated()), layers()


@sound
def a_frozen_base_of_half_weights() -> tuple[Task, nn.Module]:
    base = nn.Linear(4, 4).bfloat16().requires_grad_(False)

    class Adapted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base, self.head = base, nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.base(x.bfloat16()).float())

    return Task.classification((points(), classes()), (points(), classes())), Adapted()


@sound
def groups() -> tuple[Task, nn.Module]:
    model = layers()
    fields = {
        "parameter_groups": lambda model: [
            {"params": model[0].parameters(), "lr": 0.1},
            {"params": model[2].parameters()},
        ]
    }
    return Task.classification((points(), classes()), (points(), classes()), **fields), model


@sound
def a_metric_of_places() -> tuple[Task, nn.Module]:
    """A class for each place, some of them ignored."""
    labels = torch.stack([classes()] * 4, 1)
    labels[:, 3] = 255
    loss = lambda o, b: F.cross_entropy(o, b[1], ignore_index=255, reduction="none").flatten()  # noqa: E731
    right = lambda o, b: {"right": (o.argmax(1) == b[1])[b[1] != 255].float()}  # noqa: E731
    fields = {"count": lambda b: (b[1] != 255).sum(), "metrics": right, "higher_is_better": {"right": True}}
    return task(points(), labels, loss=loss, **fields), layers(nn.Unflatten(1, (3, 4)), outputs=12)


def test_complex_weights_are_trained_as_without_fused_kernels() -> None:
    one, other = (net("complex_weights") for _ in range(2))
    config = configured(device="cpu", weight_decay=0.01)
    assert config.optimizer["fused"]
    plain = torch.optim.SGD(other.parameters(), peak_lr(config), momentum=0.9, weight_decay=0.01, fused=False)
    for model, optimizer in ((one, build_optimizer(config, one)), (other, plain)):
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(points()), classes()).backward()
            optimizer.step()

    assert torch.equal(one.weight, other.weight)


@pytest.mark.parametrize("name", MAKERS)
def test_nothing_is_wrong_with_a_sound_task(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    checkup = examined(name, monkeypatch)

    assert [f for f in checkup.findings if f.level is Level.WRONG] == []
    assert checkup.untried == checkup.too_slow == ()


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("derivatives", "losses (8,) float32 for 8 examples"),
        ("groups", "outputs (8, 3) float32 for 8 examples"),
    ],
)
def test_what_a_task_gives_is_described(name: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [f.what for f in examined(name, monkeypatch).findings if f.name == "shapes"] == [what]


def examined(name: str, monkeypatch: pytest.MonkeyPatch) -> Checkup:
    monkeypatch.setitem(sys.modules, "sound_tasks", sys.modules[HERE])
    named = {"name": name}
    config = configured(
        data={"_target_": "sound_tasks.data", **named},
        model={"_target_": "sound_tasks.net", **named},
        device="cpu",
        target=TARGETS.get(name, {"metric": None, "value": None}),
    )
    return examine(config)
