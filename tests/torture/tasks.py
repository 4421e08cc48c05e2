"""Tasks, models and optimizers that are hard to resume, as data: each a few steps, with what a checkpoint must hold."""

import collections
import copy
import random
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tree_sets import ragged

from batchlab import Task
from torture.tiny import Data, Net

HERE = "torture.tasks."


def _cross_entropy(outputs: Tensor, batch: Any) -> Tensor:
    return F.cross_entropy(outputs, batch[1], reduction="none")


def _data(**changes: Any) -> Task:
    """The tiny set; cross-entropy unless `changes` say otherwise."""
    return Task.classification(Data().train, Data().val, **changes)


# losses


def whole_batch() -> Task:
    """In-batch negatives: the loss of an example depends on all others of its batch."""

    def loss(outputs: Tensor, batch: Any) -> Tensor:
        scores = F.normalize(outputs, dim=1) @ F.normalize(batch[0][:, :3], dim=1).T
        return F.cross_entropy(scores / 0.3, torch.arange(len(scores)))

    return _data(loss=loss, reduction="batch")


def averaged() -> Task:
    """A loss that is a mean, as in most training scripts."""
    return _data(loss=lambda outputs, batch: F.cross_entropy(outputs, batch[1]))


def summed() -> Task:
    return _data(loss=lambda outputs, batch: F.cross_entropy(outputs, batch[1], reduction="sum"), reduction="sum")


def weighted() -> Task:
    """A pair of losses and weights."""
    return _data(loss=lambda outputs, batch: (_cross_entropy(outputs, batch), 1.0 + batch[1]))


def sparse_terms() -> Task:
    """Only labels of 0 are terms, so that some batches have none."""

    def loss(outputs: Tensor, batch: Any) -> Tensor:
        return _cross_entropy(outputs, batch)[batch[1] == 0]

    return _data(loss=loss, count=lambda batch: (batch[1] == 0).sum(), metrics=lambda outputs, batch: {})


def joined() -> Task:
    """Forward and loss in one function."""
    return _data(training_loss=lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]))


class Centres(nn.Module):
    """Draws outputs to a trained centre, the more weakly the more often it was called; has momentum of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.randn(3) + random.gauss(0, 1) + np.random.rand())
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(3), persistent=False)

    def forward(self, outputs: Tensor, batch: Any) -> Tensor:
        if self.training:
            self.passes += 1
            self.mean = self.mean.lerp(outputs.detach().mean(0), 0.1)
        distance = (outputs - self.centre - self.mean).square().sum(1)
        return _cross_entropy(outputs, batch) + 0.1 * distance / (1 + self.passes)


def by_centres() -> Task:
    return _data(loss=Centres())


# hooks


class Average:
    """An exponential average of the weights, which is validated in their place."""

    def __init__(self) -> None:
        self.average: dict[str, Tensor] | None = None
        self.steps = 0

    def after_step(self, model: nn.Module, step: int) -> None:
        now = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.average = self.average or now
        self.steps += 1
        for name, value in now.items():
            self.average[name].lerp_(value, 1 / (1 + self.steps))
        if step % 4 == 0:  # the average goes back into training, so that it shows in the weights
            with torch.no_grad():
                for name, p in model.named_parameters():
                    p.lerp_(self.average[name], 0.5)

    def evaluate_with(self, model: nn.Module) -> nn.Module:
        other = copy.deepcopy(model)
        other.load_state_dict(self.average or {}, strict=False)
        return other

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.average, self.steps = state["average"], state["steps"]


def by_average() -> Task:
    hook = Average()
    return _data(after_step=hook.after_step, evaluate_with=hook.evaluate_with)


class OfTorch:
    """PyTorch's own average of a model, made at the first step."""

    def __init__(self) -> None:
        self.average: AveragedModel | None = None
        self.waiting: Mapping[str, Any] | None = None

    def _of(self, model: nn.Module) -> AveragedModel:
        if self.average is None:
            self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8), use_buffers=True)
            if self.waiting is not None:
                self.average.load_state_dict(self.waiting)
        return self.average

    def __call__(self, model: nn.Module, step: int) -> None:
        self._of(model).update_parameters(model)

    def state_dict(self) -> dict[str, Any]:
        return {"average": None if self.average is None else self.average.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.waiting = state["average"]


def freezes(model: Any, step: int) -> None:
    """A third of the way through, statistics and a layer are frozen, and a number in the model changes."""
    if step == 4:
        model.norm.eval()
        model.first.requires_grad_(False)
        model.gain = 0.5


def frozen_later() -> Task:
    return _data(after_step=freezes)


def by_average_of_torch() -> Task:
    hook = OfTorch()
    return _data(after_step=lambda model, step: hook(model, step), evaluate_with=lambda model: hook._of(model))


class Wanders:
    """Shifts the inputs by more in each epoch, drawn from the epoch's seed and from the global streams."""

    def __init__(self) -> None:
        self.shift = torch.zeros(())

    def on_epoch(self, epoch: int, seed: int) -> None:
        drawn = torch.rand((), generator=torch.Generator().manual_seed(seed))
        self.shift = self.shift + drawn + 0.1 * random.random() + 0.1 * np.random.rand()

    def augment(self, batch: Any, draws: Tensor) -> Any:
        return batch[0] + self.shift + 1e-3 * (draws % 7).unsqueeze(1), batch[1]

    def state_dict(self) -> dict[str, Any]:
        return {"shift": self.shift}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.shift = state["shift"]


def wandering() -> Task:
    hook = Wanders()
    return _data(on_epoch=hook.on_epoch, augment=hook.augment)


# optimizers


def grouped() -> Task:
    """The first layer at a tenth of the learning rate, the last without weight decay, the loss's in a third group."""

    def groups(model: Any) -> list[dict[str, Any]]:
        return [
            {"params": model.first.parameters(), "lr": 0.1},
            {"params": model.last.parameters(), "weight_decay": 0.0},
        ]

    return _data(parameter_groups=groups, loss=Centres())


class Averaging(torch.optim.Optimizer):
    """Schedule-free in small: the weights are z in training, and the mean x of all z in evaluation."""

    def __init__(self, params: Iterable[Any], lr: float) -> None:
        super().__init__(params, {"lr": lr, "training": False, "k": 0})

    def train(self) -> None:
        self._switch(training=True)

    def eval(self) -> None:
        self._switch(training=False)

    @torch.no_grad()
    def _switch(self, *, training: bool) -> None:
        for group in self.param_groups:
            if group["training"] != training:
                group["training"] = training
                for p in group["params"]:
                    if "x" in self.state[p]:
                        change = self.state[p]["z"] - self.state[p]["x"]
                        p.add_(change if training else -change)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["k"] += 1
            for p in group["params"]:
                p -= group["lr"] * p.grad
                x = self.state[p].setdefault("x", torch.zeros_like(p))
                x += (p - x) / group["k"]
                self.state[p]["z"] = p.clone()


class Sharpness(torch.optim.SGD):
    """Sharpness-aware minimization; a second, averaged radius is in its state."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        moves = {}
        for group in self.param_groups:
            norm = torch.stack([p.grad.norm() for p in group["params"]]).norm()
            group["radius"] = 0.5 * group.get("radius", 0.1) + 0.05 * float(norm)
            for p in group["params"]:
                moves[p] = p.grad * (group["radius"] / norm)
                p.add_(moves[p])
        with torch.enable_grad():
            closure()
        for p, move in moves.items():
            p.sub_(move)
        return super().step()


# models


class Draws(Net):
    """Draws from Python's, NumPy's and PyTorch's global streams, in its weights and in each pass."""

    def __init__(self, evaluation: bool = False) -> None:
        super().__init__()
        self.own = random.random() + np.random.rand()
        self.evaluation = evaluation

    def forward(self, x: Tensor) -> Any:
        if self.training or self.evaluation:
            x = x * (random.gauss(1, 0.1) + 0.1 * np.random.randn() + 0.1 * torch.rand(()))
        return super().forward(x) * self.own


class OwnStreams(Net):
    """Draws from generators of its own, of all three kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.streams = {"python": random.Random(1), "numpy": np.random.default_rng(2), "old": np.random.RandomState(3)}
        self.of_torch = torch.Generator().manual_seed(4)

    def forward(self, x: Tensor) -> Any:
        if self.training:
            drawn = self.streams["python"].random() + self.streams["numpy"].normal() + self.streams["old"].rand()
            x = x * (1 + 0.1 * drawn + 0.1 * torch.rand((), generator=self.of_torch))
        return super().forward(x)


class Reassigns(Net):
    """Buffers that a pass replaces: one kept out of the state_dict, one None at first, one that grows, one added."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(6))
        self.register_buffer("spread", torch.zeros(6), persistent=False)
        self.register_buffer("first_seen", None)
        self.register_buffer("bank", torch.zeros(0, 6))
        self.register_buffer("hidden_bank", torch.zeros(0, 6), persistent=False)
        self.register_buffer("hidden_first", None, persistent=False)

    def forward(self, x: Tensor) -> Any:
        if self.training:
            self.centre = self.centre.lerp(x.mean(0), 0.1)
            self.spread = self.spread.lerp(x.std(0), 0.1)
            self.first_seen = x[0].clone() if self.first_seen is None else self.first_seen
            self.hidden_first = x[1].clone() if self.hidden_first is None else self.hidden_first
            self.bank = torch.cat((self.bank, x[:1]))[-5:]
            self.hidden_bank = torch.cat((self.hidden_bank, x[-1:]))[-6:]
            if not hasattr(self, "late"):
                self.register_buffer("late", x[2].clone())
                self.register_buffer("hidden_late", x[3].clone(), persistent=False)
            x = x - self.centre + 0.1 * (self.first_seen + self.hidden_first + self.late + self.hidden_late)
            x = (x + 0.1 * (self.bank.sum(0) + self.hidden_bank.sum(0))) / (1 + self.spread)
        return super().forward(x)


class Attributes(Net):
    """What passes change in plain attributes: a number, a tensor, a list, a deque, a dict, an array."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.centre = 0, torch.zeros(6)
        self.kept: dict[str, Any] = {"means": [], "last": None, "pair": (0, torch.zeros(6))}
        self.queue: collections.deque[Tensor] = collections.deque(maxlen=3)
        self.array = np.zeros(6, dtype=np.float32)

    def forward(self, x: Tensor) -> Any:
        if self.training:
            with torch.no_grad():
                self.calls += 1
                self.centre.lerp_(x.mean(0), 0.1)
                self.kept["means"] = [*self.kept["means"][-2:], float(x.mean())]
                self.kept["pair"] = (self.calls, x[0].clone())
                self.queue.append(x[-1].clone())
                self.array += x.mean(0).numpy()
                moved = self.centre + self.kept["pair"][1] + torch.stack([*self.queue]).mean(0)
                moved += 0.01 * torch.from_numpy(self.array) + sum(self.kept["means"])
            x = x + 0.1 * moved / self.calls
        return super().forward(x)


class Moves(Net):
    """A pass moves a parameter: the weights of the last layer are normalised."""

    def forward(self, x: Tensor) -> Any:
        if self.training:
            self.last.weight.data = F.normalize(self.last.weight.data, dim=1)
        return super().forward(x)


class Late(Net):
    """A layer takes part from the fourth pass on, another is in eval mode, and a third is never used."""

    def __init__(self) -> None:
        super().__init__(norm=True)
        self.late, self.unused = nn.Linear(8, 8), nn.Linear(2, 2)
        self.frozen = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(6)).eval()
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Any:
        hidden = torch.relu(self.norm(self.first(self.frozen(x))))
        self.passes += int(self.training)
        return self.last(self.late(hidden) if self.passes > 3 else hidden)


class OwnState(Net):
    """Keeps a number by `get_extra_state`."""

    def __init__(self) -> None:
        super().__init__(dropout=0.2)
        self._gain = [1.0]

    def get_extra_state(self) -> dict[str, Any]:
        return {"gain": self._gain[0]}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        self._gain = [state["gain"]]

    def forward(self, x: Tensor) -> Any:
        if self.training:
            self._gain[0] *= 1.01
        return super().forward(x) * self._gain[0]


def costly() -> Task:
    """Sequences of unequal length, whose length is their cost."""
    made = ragged("shaken", sampled=True)
    return Task(**vars(made) | {"cost": lambda example: len(example[0])})


def of(data: str, *, model: str | Mapping[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """The configuration of a kind: what differs from `torture.tiny`."""
    target = data if "." in data else HERE + data
    made = {"data": {"_target_": target, **changes.pop("with_data", {})}, **changes}
    if isinstance(model, str):
        model = {"_target_": model if "." in model else HERE + model}
    return made if model is None else made | {"model": model}


RECURRENT = "tree_sets.Recurrent"
PLAIN = "torture.tiny.Data"


class Straight(nn.Linear):
    """For the trees: four features in double precision."""

    def __init__(self) -> None:
        super().__init__(4, 2, dtype=torch.float64)


def _tree(kind: str) -> dict[str, Any]:
    return of("tree_sets.tree_task", model="Straight", with_data={"kind": kind})


def _ragged(**options: Any) -> dict[str, Any]:
    return of("tree_sets.ragged", model=RECURRENT, with_data=options)


KINDS: dict[str, dict[str, Any]] = {
    **{f"a tree: {kind}": _tree(kind) for kind in ("nested", "dict", "dataclass", "named tuple")},
    "collate: padded": _ragged(),
    "collate: random": _ragged(collate="shaken") | {"accumulate": 2},
    "collate: random, each time": _ragged(collate="shaken", kept=False),
    "sampler": _ragged(sampled=True),
    "sampler, collate and cost": of("costly", model=RECURRENT, accumulate=2),
    "loss of a whole batch": of("whole_batch"),
    "mean": of("averaged", accumulate=2),
    "sum": of("summed", accumulate=2, lr=0.01),
    "weights": of("weighted", accumulate=2),
    "batches without terms": of("sparse_terms", batch_size=2, steps=20),
    "training_loss": of("joined", model="Draws"),
    "loss with parameters": of("by_centres"),
    "average of the weights": of("by_average"),
    "average of the weights, by PyTorch": of("by_average_of_torch"),
    "frozen during training": of("frozen_later"),
    "on_epoch": of("wandering", steps=25),
    "on_epoch, large batches": of("wandering", batch_size=35, steps=9, checkpoint_every=35),
    "parameter groups": of("grouped", weight_decay=0.01, schedule="linear"),
    "train() and eval()": of(PLAIN, optimizer={"_target_": HERE + "Averaging"}),
    "LBFGS": of(PLAIN, optimizer={"_target_": "torch.optim.LBFGS", "max_iter": 4, "history_size": 3}),
    "sharpness-aware": of(PLAIN, optimizer={"_target_": HERE + "Sharpness", "momentum": 0.9}),
    "late gradients": of(
        PLAIN, model="Late", optimizer={"_target_": "torch.optim.SGD", "momentum": 0.9, "fused": True}
    ),
    "random numbers": of(PLAIN, model="Draws"),
    "random numbers in evaluation": of(PLAIN, model={"_target_": HERE + "Draws", "evaluation": True}),
    "random streams of the model": of(PLAIN, model="OwnStreams"),
    "buffers that are replaced": of(PLAIN, model="Reassigns"),
    "attributes": of(PLAIN, model="Attributes"),
    "parameters that a pass moves": of(PLAIN, model="Moves"),
    "extra state": of(PLAIN, model="OwnState"),
}
