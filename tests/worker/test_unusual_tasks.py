"""`check` and `verify` of tasks with `collate`, losses of the batch, auxiliary losses, and losses with parameters."""

import pytest
import torch
import torch.nn.functional as F
from plain_defaults import configured
from torch import nn
from tree_sets import Recurrent, Sequences, joined, padded, ragged

from batchlab import Task
from batchlab.training.data.batches import gather
from batchlab.training.data.residence import prepare_set
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.precision import Precision
from batchlab.worker.check.examination import examine
from batchlab.worker.check.findings import Level
from batchlab.worker.verify import examination
from batchlab.worker.verify.causes import find_causes
from batchlab.worker.verify.findings import Difference, Findings, Kind
from batchlab.worker.verify.trial import Trial
from batchlab.worker.verify.wording import lines

CPU = CpuDevice()


class Sums(nn.Linear):
    """Of sequences that are padded with 0, so the padding makes no difference."""

    def __init__(self):
        super().__init__(2, 2)

    def forward(self, steps):
        return super().forward(steps.sum(1))


class Places(nn.Linear):
    """An output for each step of each sequence, or each node of each graph."""

    def __init__(self):
        super().__init__(2, 2)


def places(count, **changes):
    """Each step has a label, -100 in the padding."""

    def collate(examples):
        steps = padded(examples)[0]
        return steps, torch.where(steps.abs().sum(2) == 0, -100, (steps.sum(2) > 0).long())

    return Task(
        train=Sequences(40),
        val=Sequences(11),
        collate=collate,
        loss=lambda outputs, batch: F.cross_entropy(outputs.flatten(0, 1), batch[1].flatten(), reduction="none"),
        count=count,
        **changes,
    )


def steps_with_labels():
    return places(lambda batch: (batch[1] != -100).sum())


def all_steps():
    return places(lambda batch: batch[1].numel())


def graphs(**changes):
    """Nodes joined to one graph, in an object with `to`; a node's target is the larger of its two numbers."""
    return Task(
        train=Sequences(40),
        val=Sequences(11),
        collate=joined,
        forward=lambda model, batch: model(batch.nodes),
        **changes,
    )


def nodes():
    return graphs(
        loss=lambda outputs, batch: F.cross_entropy(outputs, batch.nodes.argmax(1), reduction="none"),
        count=lambda batch: len(batch.nodes),
    )


def mean_of_nodes():
    return graphs(
        loss=lambda outputs, batch: F.cross_entropy(outputs, batch.nodes.argmax(1)),
        count=lambda batch: len(batch.nodes),
    )


def checked(model, task):
    names = {"model": {"_target_": f"{__name__}.{model}"}, "data": {"_target_": f"{__name__}.{task}"}}
    return examine(configured(device="cpu", **names)).findings


@pytest.mark.parametrize(
    ("model", "task"),
    [("Sums", "ragged"), ("Places", "steps_with_labels"), ("Places", "nodes"), ("Places", "mean_of_nodes")],
)
def test_check_finds_nothing_wrong_in_a_collated_task(model, task):
    found = checked(model, task)

    assert [f for f in found if f.level is not Level.OK] == []
    said = {f.name: f.what for f in found}
    assert said["alone"] == "in eval mode an example has the same loss alone as in a batch"
    steps = sum(1 + i % 6 for i in range(33))  # of the first 33 of 40 examples, all of which are read
    terms = "23 examples count as 23" if task == "ragged" else f"33 examples count as {steps}"
    assert said["terms"] == f"{terms} terms; reduction={'mean' if task == 'mean_of_nodes' else 'none'}"


def test_check_says_that_padding_changes_the_result():
    found = checked("Recurrent", "ragged")

    (finding,) = [f for f in found if f.level is not Level.OK]
    assert (finding.name, finding.level) == ("alone", Level.BETTER)
    assert "what the task's collate adds to it to fit the others (padding) changes its result" in finding.what


def test_check_sees_that_a_count_with_the_padding_does_not_add_up():
    found = checked("Places", "all_steps")

    lengths = [1 + i % 6 for i in range(8)]
    (wrong,) = [f.what for f in found if f.level is Level.WRONG]
    assert f"the task's count gives {8 * max(lengths)} terms for a whole batch, but {sum(lengths)} for its" in wrong


# verify


def trial_of(model, task, batch):
    return Trial(model.double(), task, Precision("fp32", CPU), [batch], (5, 5, 5), "float64", 5)


def causes_of(trial):
    worst = trial.difference().worst
    found = find_causes(trial, worst)
    seen = Findings(trial.micro_batch_sizes, (Difference("float64", (worst,), {"a": worst}),), "", tuple(found), (1, 1))
    config = configured(
        device="cpu", batch_size=sum(trial.micro_batch_sizes), micro_batch_size=trial.micro_batch_sizes[0]
    )
    return worst, found, "\n".join(lines(seen, config))


def inputs(n=15, features=6):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, features, generator=generator, dtype=torch.float64)
    return x, (x[:, 0] > 0).long()


def collated(task, collate):
    return gather(prepare_set(task.train, CPU, name="train", collate=collate), torch.arange(15))


@pytest.mark.parametrize("padding", [True, False])
def test_a_collated_batch_is_compared_with_its_micro_batches_collated_anew(padding):
    torch.manual_seed(0)
    task, model = ragged(kept=False), (Recurrent() if padding else Sums())
    trial = trial_of(model, task, collated(task, padded))

    def gradient(*bounds):
        total = []
        for start, stop in bounds:
            steps, labels = padded([Sequences()[i] for i in range(start, stop)])
            loss = F.cross_entropy(model(steps.double()), labels, reduction="sum") / 15
            parts = torch.autograd.grad(loss, list(model.parameters()))
            total = [a + b for a, b in zip(total, parts, strict=True)] if total else list(parts)
        return torch.cat([one.flatten() for one in total])

    worst, causes, text = causes_of(trial)

    whole = gradient((0, 15))
    expected = (gradient((0, 5), (5, 10), (10, 15)) - whole).norm() / whole.norm()
    assert worst == pytest.approx(float(expected), rel=1e-9, abs=1e-14)
    assert [cause.kind for cause in causes] == ([Kind.COLLATE] if padding else [])
    assert ("Cause: the task's collate makes another input" in text) is padding
    assert "Not explained" not in text


class Experts(nn.Module):
    """A mixture of experts, with the auxiliary loss of a batch that balances their load."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.router, self.experts = kind, nn.Linear(6, 3), nn.ModuleList(nn.Linear(6, 2) for _ in range(3))

    def forward(self, x):
        shares = self.router(x).softmax(-1)
        load = F.one_hot(shares.argmax(-1), 3).to(shares).mean(0)
        self.auxiliary = (load * shares.mean(0)).sum()
        outputs = sum(expert(x) * shares[:, i : i + 1] for i, expert in enumerate(self.experts))
        return {"stored": outputs, "returned": (outputs, self.auxiliary), "loads": (outputs, load, shares.mean(0))}[
            self.kind
        ]


def auxiliary(kind, model):
    def terms(outputs, batch):
        return F.cross_entropy(outputs, batch[1], reduction="none")

    return {
        "stored": lambda outputs, batch: terms(outputs, batch) + model.auxiliary,
        "returned": lambda outputs, batch: terms(outputs[0], batch) + outputs[1],
        "loads": lambda outputs, batch: terms(outputs[0], batch) + (outputs[1] * outputs[2]).sum(),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("stored", "it uses something that forward has stored, such as an auxiliary loss. It could not be removed"),
        ("returned", "Experts (the model itself) computes a value of the whole batch, such as an auxiliary loss,"),
        ("loads", "Experts (the model itself) computes a value of the whole batch, such as an auxiliary loss,"),
    ],
)
def test_an_auxiliary_loss_of_a_mixture_of_experts_is_the_cause(kind, said):
    model = Experts(kind)
    task = Task(train=inputs(), val=inputs(), loss=auxiliary(kind, model))

    worst, causes, text = causes_of(trial_of(model, task, inputs()))

    assert worst > 1e-3
    assert len(causes) == 1
    assert said in text
    assert "Not explained" not in text
    if kind == "returned":  # accumulating is the mean over micro-batches of the auxiliary loss
        assert causes[0].remains < 1e-12


class Views(nn.Module):
    """Passes two views of each example as one batch: all first ones, then all second ones."""

    def __init__(self, norm=False):
        super().__init__()
        torch.manual_seed(0)
        norm = nn.BatchNorm1d(8) if norm else nn.Identity()
        self.layers = nn.Sequential(nn.Linear(3, 8), norm, nn.Tanh(), nn.Linear(8, 4))

    def forward(self, x):
        return self.layers(torch.cat([x[:, :3], x[:, 3:]]))


def contrasted(outputs, batch):
    z, n = F.normalize(outputs), len(outputs) // 2
    alike = (z @ z.T / 0.5).masked_fill(torch.eye(2 * n, dtype=torch.bool), -1e9)
    return F.cross_entropy(alike, torch.arange(2 * n).roll(n), reduction="none")


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("reduction", ["none", "batch"])
def test_two_views_joined_in_forward_are_no_cause_but_the_loss_that_compares_them(norm, reduction):
    loss = contrasted if reduction == "none" else lambda outputs, batch: contrasted(outputs, batch).mean()
    count = {"count": lambda batch: 2 * len(batch[0])} if reduction == "none" else {}
    task = Task(train=inputs(), val=inputs(), loss=loss, reduction=reduction, **count)

    _, causes, text = causes_of(trial_of(Views(norm), task, inputs()))

    assert [cause.what for cause in causes] == [*["BatchNorm1d"] * norm, "loss"]
    if reduction == "none":
        assert causes[-1].remains < 1e-12
    else:
        assert "Cause: the task's loss is of the batch as a whole (reduction=batch)" in text


class Learned(nn.Module):
    """A loss with a parameter of its own, and a buffer in float32."""

    def __init__(self):
        super().__init__()
        self.spread, self.weights = nn.Parameter(torch.ones(2)), nn.Buffer(torch.tensor([1.0, 3.0]))

    def forward(self, outputs, batch):
        return F.cross_entropy(outputs * self.spread, batch[1], weight=self.weights, reduction="none")


class Batchwise(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(6, 2), nn.BatchNorm1d(2))


def learned():
    x, y = inputs(64)
    return Task(train=(x.float(), y), val=(x.float(), y), loss=Learned())


def test_the_parameters_of_a_loss_are_compared_in_float64_and_put_back():
    loss = Learned().double()
    task = Task(train=inputs(), val=inputs(), loss=loss)
    names = {"model": {"_target_": f"{__name__}.Batchwise"}, "data": {"_target_": f"{__name__}.learned"}}

    layers = trial_of(Batchwise(), task, inputs()).difference().layers
    found = examination.examine(configured(device="cpu", batch_size=8, accumulate=2, **names))

    assert layers["loss"] > 1e-3
    assert loss.spread.grad is None
    assert (found.float64_failed, found.deciding.dtype) == ("", "float64")
    assert [cause.what for cause in found.causes] == ["BatchNorm1d"]
