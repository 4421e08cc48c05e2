"""No step waits for the device: on `meta`, where there are no values to wait for, and on the simulated device, where
every wait is counted."""

import pytest
import torch
from simulated_device import simulated_cuda
from still_state import state_of
from torture.tiny import tiny

from batchlab import Task
from batchlab.data.images.augment import augmentation
from batchlab.instruments.health import Health
from batchlab.instruments.training_loss import TrainingLoss
from batchlab.models.cnn import CNN
from batchlab.models.gpt import GPT
from batchlab.models.mlp import MLP
from batchlab.models.vit import ViT
from batchlab.training.clock.meter import Meter
from batchlab.training.data.batches import Batches, length
from batchlab.training.data.streaming import Streamed
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.named import device_named
from batchlab.training.devices.precision import Precision
from batchlab.training.loop import train
from batchlab.training.losses import Losses
from batchlab.training.updates.eager import Eager

pytestmark = pytest.mark.long  # every precision and model on a simulated GPU

CPU = CpuDevice()
IMAGES = {"input_shape": (3, 8, 8), "num_classes": 3}
MODELS = {
    "mlp": lambda: MLP(**IMAGES, width=8, depth=2, batch_norm=True, dropout=0.5),
    "cnn": lambda: CNN(**IMAGES, width=4),
    "vit": lambda: ViT(**IMAGES, width=8, depth=1, heads=2, patch=4),
    "gpt": lambda: GPT(vocabulary=7, context=6, width=8, depth=1, heads=2),
}
OPTIMIZERS = {
    "sgd": lambda p, **how: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3, **how),
    "adamw": lambda p, **how: torch.optim.AdamW(p, lr=0.01, **how),
}


def task_for(name):
    if name == "gpt":
        text = torch.arange(30 * 6 + 1) % 7
        return Task.language_model(text, text, 6)
    data = torch.randn(30, 3, 8, 8), torch.arange(30) % 3
    return Task.classification(data, data, augment=augmentation(crop=1, flip=True, cutout=3))


def cut(data, task, there, device=CPU):
    """Batches of the data on `there`, as `device` makes them."""
    moved = tuple(t.to(there) for t in data)
    return Batches(moved, micro_batch_sizes=(4, 3), seed=0, total=28, augment=task.augment, device=device)


@pytest.mark.parametrize(
    ("optimizer", "how"),
    [("sgd", {"foreach": False}), ("adamw", {"foreach": True})],
    ids=["sgd in a loop", "adamw by foreach"],
)
@pytest.mark.parametrize("name", MODELS)
def test_a_whole_step_runs_where_there_are_no_numbers(name, optimizer, how):
    task, model = task_for(name), MODELS[name]().to("meta")
    losses = Losses(model, task, Precision("fp32", CPU))
    step = Eager(losses, OPTIMIZERS[optimizer](model.parameters(), **how), clip_norm=1.0)
    batches = cut(task.train, task, "meta")

    step.rehearse(batches.first, CPU)
    outcomes = [step(micro_batches) for micro_batches in batches]

    assert len(outcomes) == 4
    assert all(outcome.loss_sum.is_meta and outcome.examples == 7 for outcome in outcomes)
    assert all(value.is_meta for p in model.parameters() for value in (p, p.grad))


def test_a_wait_is_detected_there():
    task, model = task_for("cnn"), MODELS["cnn"]().to("meta")
    asking = Task(**{**vars(task), "loss": lambda outputs, batch: task.loss(outputs, batch) * outputs[0, 0].item()})
    step = Eager(Losses(model, asking, Precision("fp32", CPU)), OPTIMIZERS["sgd"](model.parameters()))

    with pytest.raises(RuntimeError, match="meta"):
        step(next(iter(cut(task.train, task, "meta"))))


@pytest.fixture
def cuda():
    with simulated_cuda(kernel_seconds=1e-3) as machine:
        machine.device = device_named("cuda")
        machine.device.prepare(deterministic=False)
        yield machine


# In fp16 the host decides for unfused optimizers whether to update (GradScaler._maybe_opt_step).
WAYS = [(precision, fused) for precision in ("fp32", "tf32", "bf16", "fp16") for fused in (False, True)]
WAYS.remove(("fp16", False))


@pytest.mark.parametrize("clip_norm", [None, 1.0], ids=["", "clipped"])
@pytest.mark.parametrize(("precision", "fused"), WAYS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_no_step_waits_in_any_precision(optimizer, precision, fused, clip_norm, cuda):
    there = cuda.device.torch_device
    task, model = task_for("cnn"), MODELS["cnn"]().to(there)
    made = OPTIMIZERS[optimizer](model.parameters(), fused=fused)
    step = Eager(Losses(model, task, Precision(precision, cuda.device)), made, clip_norm)
    watching = [TrainingLoss(log_every=8), Health(log_every=8)]
    batches = cut(task.train, task, there, cuda.device)
    step.rehearse(batches.first, cuda.device)
    before = [p.detach().clone() for p in model.parameters()]
    drains, began = cuda.gpus[0].drains, cuda.clock()

    with cuda.forbidding_waits():
        for micro_batches in batches:
            outcome = step(micro_batches)
            for instrument in watching:
                instrument.watch(outcome)

    assert cuda.gpus[0].drains == drains
    assert cuda.clock() == began < cuda.gpus[0].queue.free_at  # the host ran ahead
    assert not all(torch.equal(p, was) for p, was in zip(model.parameters(), before, strict=True))


def test_a_wait_is_counted(cuda):
    there = cuda.device.torch_device
    task, model = task_for("cnn"), MODELS["cnn"]().to(there)
    step = Eager(Losses(model, task, Precision("fp32", cuda.device)), OPTIMIZERS["sgd"](model.parameters()))

    with pytest.raises(AssertionError, match="_local_scalar_dense"), cuda.forbidding_waits():
        float(step(next(iter(cut(task.train, task, there, cuda.device)))).loss_sum)


def test_between_two_measurements_the_loop_neither_waits_nor_drains(cuda, tmp_path):
    state = state_of(tiny(tmp_path, device="cuda", accumulate=2), cuda.device)
    state.budget = 40
    state.meter = Meter(peaks=cuda.device.peaks(), drain=cuda.device.drain, clock=cuda.clock)
    while_training = []

    class Noted(Eager):
        def __call__(self, micro_batches):
            while_training.append((len(cuda.gpus[0].waits), cuda.gpus[0].drains))
            outcome = super().__call__(micro_batches)
            while_training.append((len(cuda.gpus[0].waits), cuda.gpus[0].drains))
            return outcome

    step = Noted(state.losses, state.optimizer)
    row = Batches(state.train, micro_batch_sizes=(2, 2), seed=0, total=40, device=cuda.device)
    watching = [TrainingLoss(log_every=20), Health(log_every=20)]
    list(train(state, row, step, watching, learning_rate=lambda _: 0.1, stopping=lambda: False))

    assert state.step == 10
    five = [while_training[:10], while_training[10:]]  # steps, between two measurements
    assert [len(set(noted)) for noted in five] == [1, 1]
    assert five[0] != five[1]


class Pairs(torch.utils.data.Dataset):
    """A set that is read one example at a time."""

    def __len__(self):
        return 30

    def __getitem__(self, index):
        return torch.full((3,), float(index)), index % 3


def test_streamed_data_reaches_the_device_through_page_locked_memory_without_a_wait(cuda):
    read = Streamed(Pairs(), cuda.device, name="train")

    with cuda.forbidding_waits():
        batches = [*read.slices(8), read.gather(torch.tensor([7, 3]))]
        rows = [*read.row(0, 0, 60, [8])]

    assert [length(batch) for batch in batches] == [8, 8, 8, 6, 2]
    assert all(cuda.device.holds(t) for batch in (*batches, *rows) for t in batch)
    assert cuda.pinned > 0
    assert batches[-1][0][:, 0].tolist() == [7.0, 3.0]
    seen = torch.cat([values[:, 0] for values, _ in rows]).tolist()
    assert sorted(seen[:30]) == sorted(seen[30:]) == list(range(30))
