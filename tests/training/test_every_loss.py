"""Every kind of loss trains like a plain loop of PyTorch in float64, and is validated in the same unit."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from plain_defaults import configured

from batchlab import BadRequest, Task
from batchlab.instruments.panel import build_instruments
from batchlab.records import RunIdentity
from batchlab.training import assembly
from batchlab.training.data.batches import row
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.losses import as_count
from batchlab.training.passes.reduction import refuse_changed_objective
from batchlab.worker import preflight
from batchlab.worker.check import fitting
from batchlab.worker.check.examination import examine
from batchlab.worker.execute import run

STEPS, N, CLASSES, PLACES = 20, 40, 3, 5
WEIGHTS = torch.tensor([0.5, 2.0, 7.0], dtype=torch.float64)


def examples(n, seed, *, places=None):
    generator = torch.Generator().manual_seed(seed)
    shape = (n,) if places is None else (n, places)
    x = torch.randn(*shape, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(0, CLASSES, shape, generator=generator)
    if places is not None:
        y[torch.arange(places) >= torch.randint(0, places, (n, 1), generator=generator)] = -100
    return x, y


TRAIN, VAL = examples(N, 0), examples(17, 1)
PADDED, PADDED_VAL = examples(N, 0, places=PLACES), examples(17, 1, places=PLACES)


class Net(torch.nn.Linear):
    def __init__(self):
        super().__init__(4, CLASSES, dtype=torch.float64)


class WithLoss(Net):
    """As models of Hugging Face: its loss if it is given labels."""

    def forward(self, x, labels=None):
        logits = super().forward(x)
        return {"logits": logits} if labels is None else {"logits": logits, "loss": F.cross_entropy(logits, labels)}


class Detecting(torch.nn.Module):
    """As detectors: a dict of losses in training mode, and what it found in eval mode; one module is frozen."""

    def __init__(self):
        super().__init__()
        self.frozen, self.layer = torch.nn.BatchNorm1d(4, affine=False, dtype=torch.float64).eval(), Net()

    def forward(self, x, labels):
        outputs = self.layer(self.frozen(x))
        return {"classes": F.cross_entropy(outputs, labels)} if self.training else [outputs.argmax(1)]


class Dropping(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Dropout(0.5), Net())


def entropy(outputs, labels, **how):
    return F.cross_entropy(outputs.reshape(-1, CLASSES), labels.flatten(), **how)


def kept(batch):
    return batch[1] != -100


def contrastive(outputs, batch):
    near = outputs @ outputs.T - 1e9 * torch.eye(len(outputs), dtype=torch.float64)
    return F.cross_entropy(near, torch.arange(len(outputs)).flip(0))


def padded(**fields):
    return lambda: Task(train=PADDED, val=PADDED_VAL, **fields)


def plain(**fields):
    return lambda: Task(train=TRAIN, val=VAL, **fields)


zeros_at_ignored = padded(
    loss=lambda outputs, batch: entropy(outputs, batch[1], reduction="none"), count=lambda batch: kept(batch).sum()
)
rows_of_places = padded(
    loss=lambda outputs, batch: entropy(outputs, batch[1], reduction="none").view(-1, PLACES),
    count=lambda batch: int(kept(batch).sum()),
)
kept_alone = padded(
    loss=lambda outputs, batch: entropy(outputs[kept(batch)], batch[1][kept(batch)], reduction="none"),
    count=lambda batch: kept(batch).sum().item(),
)
mean_of_kept = padded(loss=lambda outputs, batch: entropy(outputs, batch[1]), count=lambda batch: kept(batch).sum())
weighted = plain(
    loss=lambda outputs, batch: F.cross_entropy(outputs, batch[1], weight=WEIGHTS, reduction="none"),
    count=lambda batch: WEIGHTS[batch[1]].sum(),
)
weighted_mean = plain(
    loss=lambda outputs, batch: F.cross_entropy(outputs, batch[1], weight=WEIGHTS),
    count=lambda batch: float(WEIGHTS[batch[1]].sum()),
)
pair_of_sums = plain(
    loss=lambda outputs, batch: (
        F.cross_entropy(outputs, batch[1], weight=WEIGHTS, reduction="sum"),
        WEIGHTS[batch[1]].sum(),
    )
)
pair_of_vectors = plain(
    loss=lambda outputs, batch: (
        F.cross_entropy(outputs, batch[1], weight=WEIGHTS, reduction="none"),
        WEIGHTS[batch[1]],
    )
)
mean = plain(loss=lambda outputs, batch: F.cross_entropy(outputs, batch[1]))
summed = plain(loss=lambda outputs, batch: F.cross_entropy(outputs, batch[1], reduction="sum"), reduction="sum")
of_batch = plain(loss=contrastive)
joined = plain(training_loss=lambda model, batch: model(batch[0], labels=batch[1])["loss"])

of_training_mode = plain(training_loss=lambda model, batch: sum(model(*batch).values()))


def whole(**how):
    return lambda outputs, batch: entropy(outputs, batch[1], **how)


KINDS = {
    "zeros_at_ignored": whole(),
    "rows_of_places": whole(),
    "kept_alone": whole(),
    "mean_of_kept": whole(),
    "weighted": whole(weight=WEIGHTS),
    "weighted_mean": whole(weight=WEIGHTS),
    "pair_of_sums": whole(weight=WEIGHTS),
    "pair_of_vectors": whole(weight=WEIGHTS),
    "mean": whole(),
    "summed": whole(reduction="sum"),
    "of_batch": contrastive,
    "joined": whole(),
}


def config_of(kind, model=Net, **changes):
    settings = {
        "data": {"_target_": f"{__name__}.{kind}"},
        "model": {"_target_": f"{__name__}.{model.__name__}"},
        "optimizer": {"_target_": "torch.optim.SGD", "momentum": 0.9},
        "default_epochs": None, "steps": STEPS, "batch_size": 10, "lr": 0.05, "lr_scaling": "none", "warmup": 0.0,
        "schedule": "constant", "weight_decay": 0.01, "clip_norm": None, "device": "cpu", "trust": ["torch"],
    }  # fmt: skip
    return configured(**(settings | changes))


def session_of(config, instruments=build_instruments, notes=None):
    data = assembly.build_data(config, CpuDevice())
    return assembly.assemble(config, data, instruments, note=(notes if notes is not None else []).append)


def plain_loop(config, loss, task):
    """The weights and the training losses of a loop without micro-batches; steps without terms are left out."""
    model = assembly.build_model(config, task, CpuDevice())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    for start in range(0, STEPS * config.batch_size, config.batch_size):
        index = row(N, config.seed, start, config.batch_size)
        batch = task.train[0][index], task.train[1][index]
        if not kept(batch).any():
            continue
        outputs = model(batch[0])
        optimizer.zero_grad()
        loss(outputs["logits"] if isinstance(outputs, dict) else outputs, batch).backward()
        optimizer.step()
    return model


def assert_same_weights(model, other):
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("micro_batch_size", [10, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_it_trains_like_a_plain_loop_whose_batches_are_whole(kind, micro_batch_size):
    config = config_of(
        kind,
        WithLoss if kind == "joined" else Net,
        micro_batch_size=None if kind == "of_batch" else micro_batch_size,
        eval_batch_size=100,
    )
    session = session_of(config)

    measured = {m.name: m.value for m in session.train()}

    task = globals()[kind]()
    other = plain_loop(config, KINDS[kind], task)
    assert_same_weights(session.state.model, other)
    outputs = other(task.val[0])
    expected = KINDS[kind](outputs["logits"] if isinstance(outputs, dict) else outputs, task.val).item()
    assert measured["val/loss"] == pytest.approx(expected / (17 if kind == "summed" else 1), rel=1e-6)


@pytest.mark.parametrize("kind", ["zeros_at_ignored", "kept_alone", "mean_of_kept"])
def test_a_step_without_terms_changes_nothing_and_is_counted_and_said_once(kind):
    config, notes = config_of(kind, batch_size=1), []
    session = session_of(config, notes=notes)

    list(session.train())

    task = globals()[kind]()
    empty = sum(not kept((None, task.train[1][row(N, config.seed, step, 1)])).any() for step in range(STEPS))
    assert empty > 1
    assert session.state.steps_without_terms == empty
    assert len([note for note in notes if "has no terms" in note]) == 1
    assert_same_weights(session.state.model, plain_loop(config, KINDS[kind], task))


def test_validation_and_training_are_in_one_unit_for_every_evaluation_batch():
    for kind in set(KINDS) - {"of_batch"}:
        config = config_of(kind, WithLoss if kind == "joined" else Net, batch_size=N, steps=1, lr=1e-30, log_every=1)
        seen = [
            {m.name: m.value for m in session_of(replace(config, eval_batch_size=size)).train()}["val/loss"]
            for size in (100, 3)
        ]
        assert seen[0] == pytest.approx(seen[1], rel=1e-6), kind


def test_what_a_scalar_is_follows_from_the_losses_of_unequal_parts():
    dropping = session_of(config_of("mean", Dropping)).state.task.reduction

    found = {
        kind: session_of(config_of(kind, WithLoss if kind == "joined" else Net)).state.task.reduction for kind in KINDS
    }

    assert dropping == "mean"
    assert found == dict.fromkeys(KINDS) | {
        "mean_of_kept": "mean",
        "weighted_mean": "mean",
        "pair_of_sums": "weights",
        "pair_of_vectors": "weights",
        "mean": "mean",
        "summed": "sum",
        "of_batch": "batch",
        "joined": "mean",
    }


def test_a_loss_of_the_batch_as_a_whole_is_accumulated_only_where_the_changed_objective_is_accepted():
    config = config_of("of_batch", micro_batch_size=5)
    with pytest.raises(BadRequest, match="accumulating would change the objective: use accumulate=1, or accept"):
        refuse_changed_objective(config, session_of(config).state.task)
    accepted = config_of("of_batch", micro_batch_size=5, accept_changed_objective=True)
    session = session_of(accepted)
    refuse_changed_objective(accepted, session.state.task)

    list(session.train())

    def mean_of_halves(outputs, batch):
        return (contrastive(outputs[:5], batch) + contrastive(outputs[5:], batch)) / 2

    assert_same_weights(session.state.model, plain_loop(accepted, mean_of_halves, of_batch()))


def test_a_task_has_one_of_loss_and_training_loss_and_a_known_reduction():
    for fields, message in (
        ({}, "neither loss nor training_loss: give loss=..., a function of"),
        ({"loss": contrastive, "training_loss": contrastive}, "both loss and training_loss: give loss"),
        (
            {"loss": contrastive, "reduction": "average"},
            "reduction='average' is unknown: use one of none, mean, sum, b",
        ),
    ):
        with pytest.raises(BadRequest, match=message):
            Task(train=TRAIN, val=VAL, **fields)


@pytest.mark.parametrize(
    ("count", "shown"), [(-1, "-1"), (float("nan"), "nan"), (None, "None"), (torch.ones(2), "shape")]
)
def test_a_count_that_is_no_count_is_refused(count, shown):
    with pytest.raises(BadRequest, match=rf"the task's count returned a .* \({shown}.*0-d tensor of at least 0"):
        as_count(count)


ignored_but_counted = padded(
    loss=lambda outputs, batch: entropy(outputs, batch[1], reduction="none"), count=lambda batch: batch[1].numel()
)


@pytest.mark.parametrize("kind", [*KINDS, "ignored_but_counted"])
def test_check_and_preflight_find_nothing_wrong_but_labels_that_are_ignored_and_counted(kind, monkeypatch):
    monkeypatch.setattr(fitting, "DTYPES", ())  # the weights are float64
    config = config_of(kind, WithLoss if kind == "joined" else Net)

    wrong = [f"{f.what}: {f.advice}" for f in examine(config).findings if f.level.name == "WRONG"]

    assert preflight.examine([config])[0] == []
    if kind != "ignored_but_counted":
        assert wrong == []
        return
    (message,) = wrong
    assert "have the label -100 and a loss of exactly 0" in message
    assert message.endswith("Task(count=lambda batch: (batch[1] != -100).sum())")


def test_preflight_refuses_to_accumulate_a_loss_of_the_batch_and_the_record_says_what_the_loss_is(tmp_path):
    (problem,), _ = preflight.examine([config_of("of_batch", micro_batch_size=5)])

    record = run(config_of("of_batch"), tmp_path / "run", RunIdentity("run", "study", "group"))

    assert problem.startswith(
        "batch_size=10 in 2 micro-batches was requested, but the task's loss is of the batch as a w"
    )
    assert (record.status, record.reduction, record.steps_without_terms) == ("completed", "batch", 0)
    assert any(note.startswith("the loss is of the batch as a whole (reduction=batch)") for note in record.notes)
    assert any("val/hardest_decile_loss needs the loss of each example" in note for note in record.notes) is (
        "val/hardest_decile_loss" not in record.final and "clean_train/loss" in record.final
    )


def test_a_loss_of_training_mode_alone_is_validated_in_this_mode_and_the_record_says_so(tmp_path):
    config = config_of("of_training_mode", Detecting, micro_batch_size=4, eval_batch_size=7)
    session = session_of(config)

    measured = {m.name: m.value for m in session.train()}

    model = session.state.model
    assert (model.training, model.layer.training, model.frozen.training) == (True, True, False)
    assert not model.frozen.running_mean.any()
    x, y = VAL
    assert measured["val/loss"] == pytest.approx(F.cross_entropy(model.layer(model.frozen(x)), y).item(), rel=1e-6)
    assert preflight.examine([config])[0] == []
    (note,) = [
        note for note in run(config, tmp_path / "run", RunIdentity("run", "study", "group")).notes if "eval" in note
    ]
    assert note.startswith("training_loss has no value in eval mode, so the model is in training mode when its loss is")
