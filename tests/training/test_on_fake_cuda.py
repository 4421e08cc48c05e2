"""Data, models, tasks and instruments on a `cuda:0` without values: a mix of devices or a wait for the device raises
an error (fake_tensors)."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fake_tensors import GPU, fake_gpu, moved, of_task
from torch._subclasses.fake_tensor import DataDependentOutputException

from batchlab import Task
from batchlab.data.images.augment import augmentation
from batchlab.instruments.health import Health
from batchlab.instruments.training_loss import FOLD, TrainingLoss
from batchlab.models.cnn import CNN
from batchlab.models.gpt import GPT
from batchlab.models.mlp import MLP
from batchlab.models.resnet import ResNet
from batchlab.models.torchvision import build as of_torchvision
from batchlab.models.vit import ViT
from batchlab.training.clock.meter import Meter
from batchlab.training.data.batches import Batches, gather, slices, split, subset
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.precision import Precision
from batchlab.training.ghost_batch_norm import give_ghosts
from batchlab.training.passes import evaluation
from batchlab.training.passes.attributes import settle_whether_it_moves
from batchlab.training.state import RunState
from batchlab.training.updates.update import Outcome

N = 30
WINDOWS, CONTEXT = 10, 6  # of a text
AUGMENTS = [
    {"crop": 2},
    {"flip": True},
    {"cutout": 4},
    {"cutout": 3},
    {"crop": 2, "flip": True, "cutout": 4},
]
IMAGES = {"input_shape": (3, 16, 16), "num_classes": 3}
VALUES = {"input_shape": (3, 16, 16), "num_outputs": 2}


def ghosts(model):
    give_ghosts(model, 4)
    return model


CLASSIFIERS = {
    "mlp": lambda: MLP(**IMAGES, width=8, depth=2, batch_norm=True, dropout=0.5),
    "mlp relu": lambda: MLP(**IMAGES, width=8, depth=2, activation="relu"),
    **{f"cnn {norm}": lambda norm=norm: CNN(**IMAGES, width=4, norm=norm) for norm in ("batch", "group", "layer")},
    **{
        f"resnet8 {norm}": lambda norm=norm: ResNet(**IMAGES, depth=8, width=4, norm=norm)
        for norm in ("batch", "group", "layer", "none")
    },
    "resnet8 ghost": lambda: ghosts(ResNet(**IMAGES, depth=8, width=4, norm="ghost")),
    "vit": lambda: ViT(**IMAGES, width=8, depth=2, heads=2, patch=4, dropout=0.5),
    "torchvision resnet18": lambda: of_torchvision("resnet18", **IMAGES),
}
REGRESSORS = {
    "mlp": lambda: MLP(**VALUES, width=8, depth=2),
    "cnn": lambda: CNN(**VALUES, width=4),
    "resnet8": lambda: ResNet(**VALUES, depth=8, width=4),
    "vit": lambda: ViT(**VALUES, width=8, depth=2, heads=2, patch=4),
}


def classified(**changes):
    data = torch.randn(N, 3, 16, 16), torch.arange(N) % 3
    return Task.classification(data, data, **changes)


def regressed():
    data = torch.randn(N, 3, 16, 16), torch.randn(N, 2)
    return Task.regression(data, data)


def written():
    text = torch.arange(WINDOWS * CONTEXT + 1) % 7
    return Task.language_model(text, text, CONTEXT)


def validating(model, task, device):
    """A run that is not being trained."""
    return RunState(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        task=task,
        train=task.train,
        val=task.val,
        device=device,
        precision=Precision("fp32", CpuDevice()),
        meter=Meter(peaks=CpuDevice().peaks()),
        budget=1000,
    )


def all_on_gpu(*values):
    return all(t.device == GPU for value in values for t in (value if isinstance(value, tuple) else [value]))


def test_a_mix_of_devices_and_a_wait_are_detected():
    with fake_gpu():
        x = torch.zeros(3, 4).to(GPU)
        with pytest.raises(RuntimeError, match=r"same device|device mismatch"):
            F.linear(x, torch.zeros(2, 4))
        for wait in (lambda: x[0, 0].item(), lambda: bool((x > 0).all()), lambda: x.sum().tolist()):
            with pytest.raises(DataDependentOutputException):
                wait()


@pytest.mark.parametrize("augment", [{}, *AUGMENTS], ids=str)
@pytest.mark.parametrize("micro_batch_sizes", [(7,), (4, 3)], ids=str)
def test_batches_are_cut_and_augmented_on_the_device(augment, micro_batch_sizes):
    made = classified(augment=augmentation(**augment))
    with fake_gpu():
        task = of_task(made)
        row = Batches(
            task.train, micro_batch_sizes=micro_batch_sizes, seed=0, total=2 * N - 4, position=7, augment=task.augment
        )
        steps = [row.first(), *row]

        assert len(steps) == 8
        for step in steps:
            assert all_on_gpu(*step)
            assert [len(images) for images, _ in step] == list(micro_batch_sizes)
            assert all(images.shape[1:] == (3, 16, 16) for images, _ in step)


def test_sets_are_gathered_cut_and_sliced_on_the_device():
    made = classified()
    with fake_gpu():
        data = of_task(made).train
        for index in (torch.arange(5), torch.arange(5).to(GPU)):
            assert all_on_gpu(gather(data, index), subset(data, index))
        assert all_on_gpu(*split(data, [10, 20]), *slices(data, 8))


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_every_classifier_runs_forward_and_computes_its_loss_on_the_device(name, training):
    made = classified()
    with fake_gpu():
        task, model = of_task(made), moved(CLASSIFIERS[name]()).train(training)
        outputs = task.forward(model, task.train)
        losses, metrics = task.loss(outputs, task.train), task.metrics(outputs, task.train)

        assert outputs.shape == (N, 3)
        assert losses.shape == metrics["accuracy"].shape == (N,)
        assert all_on_gpu(losses, metrics["accuracy"], task.labels(task.train), *model.buffers())
        assert task.count(task.train) == N


@pytest.mark.parametrize("name", REGRESSORS)
def test_every_regressor_runs_forward_and_computes_its_loss_on_the_device(name):
    made = regressed()
    with fake_gpu():
        task, model = of_task(made), moved(REGRESSORS[name]())
        losses = task.loss(task.forward(model, task.train), task.train)

        assert losses.shape == (N,)
        assert all_on_gpu(losses)


def test_a_language_model_runs_forward_and_computes_its_loss_on_the_device():
    made = written()
    with fake_gpu():
        task = of_task(made)
        model = moved(GPT(**task.model_args, width=8, depth=2, heads=2, dropout=0.5))
        losses = task.loss(task.forward(model, task.train), task.train)

        assert losses.shape == (WINDOWS * CONTEXT,)
        assert all_on_gpu(losses)
        assert task.count(task.train) == WINDOWS * CONTEXT


class Doubled(torch.nn.Module):
    """A model with a tensor that `.to` does not move."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(768, 3)
        self.factor = torch.ones(3)

    def forward(self, x):
        return self.layer(x.flatten(1)) * self.factor


def test_a_model_that_leaves_a_tensor_on_the_host_is_detected():
    made = classified()
    with fake_gpu():
        task, model = of_task(made), moved(Doubled())
        with pytest.raises(RuntimeError, match=r"same device|device mismatch"):
            task.forward(model, task.train)


@pytest.mark.parametrize("make", [classified, regressed, written], ids=["classes", "values", "text"])
def test_validation_passes_over_the_device_and_waits_once_for_each_quantity(make, monkeypatch):
    waits = []

    def read(tensor):
        waits.append(tuple(tensor.shape))
        return np.zeros(tuple(tensor.shape))

    monkeypatch.setattr(torch.Tensor, "numpy", read)
    monkeypatch.setattr(torch, "allclose", lambda *_, **__: True)  # the check of the order of terms
    made = make()
    with fake_gpu() as device:
        task = of_task(made)
        if make is written:
            model = GPT(**task.model_args, width=8, depth=2, heads=2)
        else:
            model = CNN(**(IMAGES if make is classified else VALUES), width=4)
        state = validating(moved(model), task, device)
        # What the run has found out before: the first validation compares each batch with a copy.
        state.changes_input = False
        settle_whether_it_moves(state.model)
        seen = evaluation.by_example(state, task.val, 8)

    n = len(made.val[0])
    assert all(len(quantity.sums) == n for quantity in seen.values())
    assert waits == [(n,)] * len(seen)


@pytest.mark.parametrize("skipped", [False, True], ids=["fp32", "fp16"])
def test_instruments_watch_without_a_wait(skipped):
    watching = [TrainingLoss(log_every=8), Health(log_every=8)]
    with fake_gpu():
        flag = torch.zeros((), dtype=torch.bool).to(GPU) if skipped else None
        outcome = Outcome(torch.zeros(()).to(GPU), torch.ones((), dtype=torch.int64).to(GPU), 8, flag)
        for instrument in watching:
            for _ in range(2 * FOLD + 1):
                instrument.watch(outcome)
            kept = vars(instrument)
            assert sum(isinstance(value, list) and len(value) for value in kept.values()) > 0
            for values in kept.values():
                if isinstance(values, list):
                    assert all(t.device == GPU for t in values if isinstance(t, torch.Tensor))
