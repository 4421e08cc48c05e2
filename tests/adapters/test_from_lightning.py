"""`Task.from_lightning`: a real LightningModule trains as in a plain loop, and nothing of it is dropped in silence."""

import pytest
import torch
import torch.nn.functional as F
from plain_defaults import configured
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from batchlab import BadRequest, Task
from batchlab.adapters.lightning_hooks import unused
from batchlab.instruments.panel import build_instruments
from batchlab.training import assembly
from batchlab.training.data.batches import Batches
from batchlab.training.data.order import stream_seed
from batchlab.training.data.residence import prepare_set
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.precision import Precision
from batchlab.training.losses import Losses
from batchlab.training.passes.evaluation import by_example
from batchlab.training.updates.eager import Eager

pytestmark = pytest.mark.long  # imports Lightning

lightning = pytest.importorskip("lightning", reason="lightning is not installed: pip install lightning")
torchmetrics = pytest.importorskip("torchmetrics")
CPU = CpuDevice()
N_TRAIN, N_VAL = 40, 14


def flowers(n, seed):
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return TensorDataset(x, x[:, :3].argmax(1))


class Data(lightning.LightningDataModule):
    def __init__(self, batch_size=2):
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage):
        self.sets = flowers(N_TRAIN, 0), flowers(N_VAL, 1)

    def train_dataloader(self):
        return DataLoader(self.sets[0], self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.sets[1], self.batch_size)


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3).double()
        self.right = torchmetrics.classification.MulticlassF1Score(3, average="micro")

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self.layer(x), y)
        self.log("train_loss", loss)
        self.log_dict({"first": loss, "second": loss})
        return {"loss": loss, "shown": x}

    def validation_step(self, batch):
        x, y = batch
        self.right(self.layer(x), y)
        self.log("f1", self.right)
        self.log("margin", self.layer(x).amax())
        self.log("weighted", self.layer(x).amax(), batch_size=2 * len(x))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def session(task, model=Module, **changes):
    """A run of it, whose data and model are those of this file."""
    settings = {
        "data": {"_target_": "made_for_this_test.load"}, "model": {"_target_": "made_for_this_test.Model"},
        "optimizer": {"_target_": "torch.optim.SGD"}, "steps": 20, "default_epochs": None, "batch_size": 4, "lr": 0.1,
        "weight_decay": 0.0, "schedule": "constant", "device": "cpu", "trust": ["torch"], "eval_batch_size": 4,
    }  # fmt: skip
    config = configured(**(settings | changes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembly.targets, "build", built(assembly.targets.build, task, model))
        return assembly.assemble(config, assembly.build_data(config, CPU), build_instruments)


def built(otherwise, task, model):
    def build(group, kind, **more):
        if group["_target_"].startswith("made_for_this_test"):
            return task if kind is Task else model()
        return otherwise(group, kind, **more)

    return build


def notes(model=Module, optimizer=None, **changes):
    """What the record of a run says of the module."""
    made = model()
    task = Task.from_lightning(model, Data(), **changes)
    return [*task.remarks(made, optimizer or torch.optim.SGD(made.parameters(), lr=0.1))]


def test_it_trains_as_in_a_plain_loop_over_its_data_module():
    mine, theirs = Module(), nn.Linear(6, 3).double()
    theirs.load_state_dict(mine.layer.state_dict())
    task = Task.from_lightning(Module, Data(), reduction="mean")
    update = Eager(Losses(mine, task, Precision("fp32", CPU)), torch.optim.SGD(mine.parameters(), lr=0.1))
    for micro_batches in Batches(prepare_set(task.train, CPU, name="train"), micro_batch_sizes=(4,), seed=5, total=80):
        update(micro_batches)

    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    for number in range(2):
        torch.manual_seed(stream_seed(5, "loader", number) % 2**32)
        for x, y in DataLoader(flowers(N_TRAIN, 0), 4, shuffle=True):
            optimizer.zero_grad()
            F.cross_entropy(theirs(x), y).backward()
            optimizer.step()

    assert torch.allclose(mine.layer.weight, theirs.weight, rtol=0, atol=1e-10)
    assert not torch.allclose(mine.layer.weight, Module().layer.weight, atol=1e-2)
    assert "log" not in vars(mine)


def test_what_validation_logs_is_measured_over_the_whole_set():
    task = Task.from_lightning(Module, Data(), logged={"f1": True, "margin": False, "weighted": False})
    run = session(task)
    state = run.state

    found = by_example(state, state.val, 4, task.whole_metrics)

    x, y = flowers(N_VAL, 1).tensors
    logits = state.model.layer(x).detach()
    highest = [part.amax().item() for part in logits.split(4)]  # batches of 4, 4, 4 and 2
    assert found["f1"].mean == pytest.approx((logits.argmax(1) == y).double().mean().item(), abs=1e-6)
    assert found["margin"].mean == pytest.approx((4 * sum(highest[:3]) + 2 * highest[3]) / 14, abs=1e-6)
    assert found["weighted"].mean == pytest.approx(found["margin"].mean, abs=1e-6)
    assert found["loss"].mean == pytest.approx(F.cross_entropy(logits, y).item(), abs=1e-6)
    assert task.higher_is_better == {"f1": True, "margin": False, "weighted": False}
    final = {m.name: m.value for m in run.train()}
    assert final["val/f1"] > found["f1"].mean  # it has learned, and nothing is left of earlier validations
    logits = state.model.layer(x)
    assert final["val/f1"] == pytest.approx((logits.argmax(1) == y).double().mean().item(), abs=1e-6)


class Grouped(Module):
    """A learning rate and a decay of its own for the bias; a scheduler has changed the learning rates."""

    def configure_optimizers(self):
        bias = {"params": [self.layer.bias], "lr": 0.02, "weight_decay": 0.0}
        optimizer = torch.optim.AdamW(
            [{"params": [self.layer.weight]}, bias], lr=0.1, weight_decay=0.3, betas=(0.5, 0.9)
        )
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.LinearLR(optimizer, 0.25)}


class OneCycle(Module):
    def configure_optimizers(self):
        groups = [{"params": [self.layer.weight]}, {"params": [self.layer.bias], "lr": 0.5}]
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=[0.1, 0.5], total_steps=9)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


class Frozen(Module):
    def __init__(self):
        super().__init__()
        self.layer.bias.requires_grad_(False)

    def configure_optimizers(self):
        return (torch.optim.Adam(self.parameters(), lr=0.7),)


class NoOptimizer(Module):
    def configure_optimizers(self):
        return None


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Module, [{}]),
        (Grouped, [{}, {"lr": pytest.approx(0.2), "weight_decay": 0.0}]),
        (OneCycle, [{}, {"lr": pytest.approx(5)}]),
        (Frozen, [{}]),
        (NoOptimizer, [{}]),
    ],
)
def test_the_groups_are_those_of_the_module(model, expected):
    made = model()

    groups = Task.from_lightning(model, Data()).parameter_groups(made)

    assert [{name: value for name, value in group.items() if name != "params"} for group in groups] == expected
    parameters = [p for p in made.parameters() if p.requires_grad]
    assert [id(p) for group in groups for p in group["params"]] == [id(p) for p in parameters]


def test_the_run_trains_the_groups_at_their_multiples():
    run = session(Task.from_lightning(Grouped, Data()), Grouped, lr=0.5, weight_decay=0.01)

    assert [g["weight_decay"] for g in run.state.optimizer.param_groups] == [0.01, 0.0]
    assert run.state.group_multiples == pytest.approx((1.0, 0.2))
    assert run.notes[-3:] == (
        "validation_step of Grouped is not called: val/loss is that of training_step in eval mode, and "
        'Task.from_lightning(..., logged={"NAME": True}) measures what it logs',
        "AdamW(lr=0.1, weight_decay=0.3) of configure_optimizers is replaced by the options optimizer, lr and "
        "weight_decay; its parameter groups are used",
        "LinearLR of configure_optimizers is replaced by the option schedule",
    )


class Hooked(Module):
    def on_train_epoch_end(self):
        self.seen = True

    def on_test_epoch_end(self):
        self.seen = True

    def configure_callbacks(self):
        return []

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx)["loss"] * self.weight()

    def weight(self):
        return 1 + self.current_epoch


class DecayEverywhere(Module):
    def configure_optimizers(self):
        groups = [{"params": [p], "weight_decay": d, "betas": b} for p, d, b in self.parts()]
        return torch.optim.Adam(groups, lr=0.1)

    def parts(self):
        return (self.layer.weight, 0.1, (0.9, 0.99)), (self.layer.bias, 0.2, (0.9, 0.999))


def test_what_is_left_out_is_said():
    logged = {"margin": False}

    assert notes(logged=logged) == []
    assert notes(Hooked, logged=logged) == [
        "not called, as there is no Trainer: on_train_epoch_end and configure_callbacks of Hooked",
        "current_epoch is 0 throughout the training, as there is no Trainer, but weight reads it",
    ]
    assert notes(DecayEverywhere, logged=logged)[-2:] == [
        "betas of the groups of configure_optimizers has no effect, as SGD does not have it",
        "every group of configure_optimizers has its own weight_decay, which holds instead of that of the run",
    ]
    assert notes(Grouped, logged=logged, parameter_groups=lambda model: [{"params": model.parameters()}]) == [
        "configure_optimizers of Grouped is not called: the task has its own parameter_groups"
    ]
    assert notes(Frozen, logged=logged)[0].startswith("Adam(lr=0.7) of configure_optimizers is replaced by the options")


class Manual(Module):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False


class Two(Module):
    def configure_optimizers(self):
        return [torch.optim.SGD([p], lr=0.1) for p in self.layer.parameters()]


class WithTrainer(Module):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1 / self.trainer.max_epochs)


class Skipping(Module):
    def training_step(self, batch, batch_idx):
        return None


class Summing(Module):
    def validation_step(self, batch, batch_idx):
        self.log("margin", 1.0, reduce_fx="sum")


class SumInTraining(Module):
    def training_step(self, batch, batch_idx):
        self.log("count", 1.0, reduce_fx="sum")  # dropped
        if batch_idx % 100 == 0:
            self.log("mean", 1.0, reduce_fx=torch.mean)
        return super().training_step(batch, batch_idx)


class Adapting(Module):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        optimizer.param_groups[0]["lr"] = None
        return optimizer


class Clipping(Module):
    def on_after_backward(self):
        self.zero_grad()


class Counting(Module):
    def __init__(self):
        super().__init__()
        self.seen = torchmetrics.MeanMetric()

    def training_step(self, batch, batch_idx):
        self.seen(1.0)
        self.log("seen", self.seen)
        return super().training_step(batch, batch_idx)


class Stepping(Module):
    def optimizer_step(self, *args, **kwargs):
        return None


class Augmenting(Data):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch


class Fixed(Data):
    def train_dataloader(self):
        return DataLoader(self.sets[0], 3)


class WithoutSize(Data):
    def __init__(self):
        lightning.LightningDataModule.__init__(self)


def epoch(task, model):
    """A validation and a step."""
    return [*session(task, model, steps=1).train()]


BATCH = (torch.zeros(2, 6, dtype=torch.float64), torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (
            lambda: Task.from_lightning(Module(), Data()).parameter_groups(Manual()),
            "Manual sets automatic_optimization",
        ),
        (
            lambda: Task.from_lightning(Manual(), Data()),
            "Manual sets automatic_optimization=False, so it makes its own",
        ),
        (
            lambda: Task.from_lightning(Two, Data()).parameter_groups(Two()),
            "of Two returns 2 optimizers, but a run has",
        ),
        (
            lambda: Task.from_lightning(WithTrainer, Data()).parameter_groups(WithTrainer()),
            r"configure_optimizers of WithTrainer.* fails without a Trainer \(.*attached.*give .* parameter_groups=",
        ),
        (
            lambda: Task.from_lightning(Stepping, Data()),
            "Stepping has optimizer_step, which batchlab does not call: wri",
        ),
        (
            lambda: Task.from_lightning(Module, Augmenting()),
            "Augmenting has on_after_batch_transfer, which batchlab do",
        ),
        (lambda: Task.from_lightning(Module, Fixed()).train.make_loader("train", 8, 0), "of 3 where 8 was requested"),
        (lambda: Task.from_lightning(Module, WithoutSize()).train.make_loader("val", 8, 0), "has no batch_size, so"),
        (lambda: Task.from_lightning(Module, Data), r"was given the class Data: give an object, Data\(\)"),
        (lambda: Task.from_lightning(Module, flowers(4, 0)), "was given a TensorDataset as its data: give a Light"),
        (lambda: Task.from_lightning(Module), "was given no data"),
        (lambda: Task.from_lightning(nn.Linear, Data()), "was given Linear, which is not a LightningModule"),
        (lambda: Task.from_lightning(lightning.LightningModule, Data()), "has no training_step"),
        (
            lambda: Task.from_lightning(Skipping, Data()).training_loss(Skipping(), BATCH),
            "returned no loss, which skips",
        ),
        (lambda: epoch(Task.from_lightning(Summing, Data(), logged={"margin": True}), Summing), "'sum'"),
        (lambda: Task.from_lightning(Clipping, Data()), "Clipping has on_after_backward, .* clip_norm"),
        (
            lambda: Task.from_lightning(Adapting, Data()).parameter_groups(Adapting()),
            r"has no learning rate \(lr=None\).* parameter_groups=",
        ),
        (
            lambda: Task.from_lightning(Module, Data(), logged={"f1": True}, whole_metrics={}),
            "so whole_metrics cannot be given too: log that metric in validation_step",
        ),
        (
            lambda: epoch(Task.from_lightning(Module, Data(), logged={"missing": True}), Module),
            "logged has 'missing', but validation_step logs f1, margin and weighted: use the name",
        ),
    ],
)
def test_what_cannot_be_carried_over_is_refused(do, message):
    with pytest.raises(BadRequest, match=message):
        do()


def test_hyperparameters_may_hold_the_batch_size():
    class Saved(lightning.LightningDataModule):
        setup, val_dataloader = Data.setup, Data.val_dataloader

        def __init__(self, batch_size):
            super().__init__()
            self.save_hyperparameters()

        def train_dataloader(self):
            return DataLoader(self.sets[0], self.hparams.batch_size)

    loader = Task.from_lightning(Module, Saved(2)).train.make_loader("train", 8, 0)

    assert len(next(iter(loader))[0]) == 8


def test_what_training_logs_is_dropped_and_its_metrics_do_not_grow():
    task = Task.from_lightning(SumInTraining, Data())
    assert epoch(task, SumInTraining)
    said = [*unused(SumInTraining, measured=True)]
    assert said == ["batch_idx is 0 in every step, but training_step of SumInTraining reads it"]

    model = Counting().train()
    for _ in range(3):
        Task.from_lightning(Counting, Data()).training_loss(model, BATCH)
    assert model.seen.update_count == 0


def test_a_loss_of_the_users_own_replaces_that_of_the_module():
    task = Task.from_lightning(Module, Data(), loss=nn.functional.cross_entropy, higher_is_better={"loss": False})
    assert (task.training_loss, task.loss) == (None, nn.functional.cross_entropy)
