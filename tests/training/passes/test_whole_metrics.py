"""Metrics of the whole validation set: F1 compared with its formula, whatever the evaluation batches."""

import re
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from plain_defaults import configured
from still_life import by_name, run_state

from batchlab import BadRequest, Task
from batchlab.instruments.panel import build_instruments
from batchlab.instruments.validation import Validation
from batchlab.records import RunIdentity
from batchlab.sweep.summary.table_quantities import in_tables
from batchlab.training import assembly
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.passes.evaluation import by_example
from batchlab.worker import preflight
from batchlab.worker.check.examination import examine
from batchlab.worker.execute import run

N_VAL = 45


def examples(n, seed):
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] + 0.5 * x[:, 1] > 1).long()


class F1:
    """Counts in Python; draws random numbers and changes its inputs, which must leave no trace."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.right = self.predicted = self.actual = 0

    def update(self, outputs, batch):
        guess, labels = outputs.argmax(1), batch[1]
        self.right += int((guess * labels).sum())
        self.predicted += int(guess.sum())
        self.actual += int(labels.sum())
        outputs.add_(torch.rand(()))

    def compute(self):
        return 2 * self.right / (self.predicted + self.actual)


def f1_by_hand(model, data):
    with torch.no_grad():
        guess = model(data[0]).argmax(1).tolist()
    pairs = list(zip(guess, data[1].tolist(), strict=True))
    precision = pairs.count((1, 1)) / max(1, guess.count(1))
    recall = pairs.count((1, 1)) / data[1].tolist().count(1)
    return 2 * precision * recall / (precision + recall)


class Mean(torch.nn.Module):
    """With the interface of torchmetrics: a module whose update takes (preds, target)."""

    higher_is_better = False

    def __init__(self):
        super().__init__()
        self.register_buffer("total", torch.zeros(()))

    def update(self, preds, target):
        self.total += (preds.argmax(1) != target).sum()

    def compute(self):
        return self.total

    def reset(self):
        self.total = torch.zeros_like(self.total)


def entropy(outputs, batch):
    return F.cross_entropy(outputs, batch[1], reduction="none")


def task_of(whole, **changes):
    return Task(train=examples(60, 0), val=examples(N_VAL, 1), loss=entropy, whole_metrics=whole, **changes)


def with_f1():
    return task_of({"f1": F1(), "errors": Mean()}, higher_is_better={"f1": True})


def without():
    return task_of({})


def net():
    torch.manual_seed(3)
    return torch.nn.Linear(4, 2)


def validated(task, model, eval_batch_size, **state):
    its_state = run_state(model, task)
    vars(its_state).update(state)
    return by_name(Validation(eval_every=10, eval_batch_size=eval_batch_size).measure(its_state))


@pytest.mark.parametrize("eval_batch_size", [1, 7, 1000])
def test_f1_is_that_of_the_whole_set_for_every_evaluation_batch_and_in_every_validation(eval_batch_size):
    task, model = with_f1(), net()
    for _ in range(2):
        seen = validated(task, model, eval_batch_size)

        assert seen["val/f1"].value == pytest.approx(f1_by_hand(model, task.val), rel=1e-12)
        assert seen["val/errors"].value == (model(task.val[0]).argmax(1) != task.val[1]).sum()
    assert task.whole_metrics["f1"].actual == 0  # its memory is given back


def test_a_pass_that_is_repeated_with_fewer_examples_counts_each_once():
    model, sizes = net(), []

    def crowded(model, batch):
        sizes.append(len(batch[0]))
        if len(sizes) > 1 and len(batch[0]) > 12:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return model(batch[0])

    task = task_of({"f1": F1()}, forward=crowded)

    seen = validated(task, model, 20, changes_input=False)

    assert sizes[:3] == [20, 20, 10]
    assert seen["val/f1"].value == pytest.approx(f1_by_hand(model, task.val), rel=1e-12)


def test_it_is_only_of_the_validation_set():
    task = with_f1()
    assert list(by_example(run_state(net(), task), task.train, 7)) == ["loss"]


def test_a_metric_that_is_a_module_follows_the_outputs_to_their_device():
    moved = []
    metric = Mean()
    metric.to = moved.append
    validated(task_of({"errors": metric}), net(), 7)
    assert moved == [torch.device("cpu")]


class Installed(F1):
    """A metric of torchmetrics, whose parameters have other names."""

    def update(self, indexes, truth):
        assert truth.dtype == torch.int64
        super().update(indexes, (None, truth))


Installed.__module__ = "torchmetrics.retrieval"


class Derived(Installed):
    """A user's own, which gets the whole batch."""

    def update(self, outputs, batch):
        F1.update(self, outputs, batch)


@pytest.mark.parametrize("kind", [Installed, Derived])
def test_metrics_of_torchmetrics_get_the_target_unless_they_take_a_batch(kind):
    task, model = task_of({"f1": kind()}), net()
    assert validated(task, model, 7)["val/f1"].value == pytest.approx(f1_by_hand(model, task.val), rel=1e-12)


def config_of(kind, **changes):
    settings = {
        "data": {"_target_": f"{__name__}.{kind}"},
        "model": {"_target_": f"{__name__}.net"},
        "optimizer": {"_target_": "torch.optim.SGD"},
        "default_epochs": None, "steps": 12, "batch_size": 10, "lr": 0.05, "lr_scaling": "none", "warmup": 0.0,
        "schedule": "constant", "weight_decay": 0.0, "clip_norm": None, "device": "cpu", "eval_every": 20,
    }  # fmt: skip
    return configured(**(settings | changes))


def trained(config):
    session = assembly.assemble(config, assembly.build_data(config, CpuDevice()), build_instruments, note=print)
    list(session.train())
    return session.state.model


def test_measuring_it_changes_no_weight():
    one, other = (trained(config_of(kind)) for kind in ("with_f1", "without"))
    for ours, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_it_is_in_the_record_with_its_direction_and_a_target_may_name_it(tmp_path):
    config = config_of("with_f1", target={"metric": "val/errors", "value": 1000.0})
    assert preflight.examine([config])[0] == []

    record = run(config, tmp_path / "run", RunIdentity("run", "study", "group"))

    declared = {quantity.name: quantity for quantity in record.quantities}
    assert (declared["val/f1"].higher_is_better, declared["val/errors"].higher_is_better) == (True, False)
    assert [quantity.name for quantity in in_tables([record])][-2:] == ["val/f1", "val/errors"]
    assert record.final.keys() >= {"val/f1", "val/errors"}
    assert record.best.keys() >= {"val/f1", "val/errors"}
    assert record.target["reached"] is True
    assert '"val/f1"' in (tmp_path / "run/metrics.jsonl").read_text()


class Broken(F1):
    def update(self, outputs, batch):
        raise ValueError("labels must be floats")


class NotANumber(F1):
    def compute(self):
        return torch.ones(3)


class NeedsMany(F1):
    def compute(self):
        if self.actual < 3:
            raise ValueError("only one class")
        return super().compute()


def broken():
    return task_of({"f1": Broken()})


def not_a_number():
    return task_of({"f1": NotANumber()})


def needs_many():
    return task_of({"f1": NeedsMany()}, higher_is_better={"f1": True})


def twice():
    metrics = {"metrics": lambda outputs, batch: {"f1": outputs[:, 0]}}
    return task_of({"f1": F1()}, higher_is_better={"f1": True}, **metrics)


def scalar_metric():
    return task_of({}, metrics=lambda outputs, batch: {"f1": outputs.mean()}, higher_is_better={"f1": True})


def dict_batches():
    x, y = examples(20, 0)
    data = {"x": x, "labels": y}
    return Task(
        train=data,
        val=data,
        forward=lambda model, batch: model(batch["x"]),
        loss=lambda outputs, batch: F.cross_entropy(outputs, batch["labels"], reduction="none"),
        whole_metrics={"errors": Mean()},
    )


MESSAGES = {
    "broken": "whole_metrics['f1'].update fails: ValueError: labels must be floats (",
    "not_a_number": "whole_metrics['f1'].compute returns a Tensor of shape (3,): return one number, or a 0-d tensor",
    "twice": "metrics and whole_metrics both have a metric 'f1': rename one of them",
    "scalar_metric": "what is no mean of such values (F1, AUROC) is given as Task(whole_metrics=...)",
    "dict_batches": "whole_metrics['errors'] takes (preds, target), but a batch of this task is a dict, which has no",
}


@pytest.mark.parametrize("kind", MESSAGES)
def test_preflight_and_check_say_what_is_wrong_with_it(kind):
    config = config_of(kind)

    (problem,), _ = preflight.examine([config])
    wrong = [f"{f.what}: {f.advice}" for f in examine(config).findings if f.level.name == "WRONG"]

    assert MESSAGES[kind] in problem
    assert [MESSAGES[kind] in found for found in wrong] == [True]


def test_a_metric_that_needs_more_than_a_few_examples_is_no_problem():
    assert preflight.examine([config_of("needs_many")])[0] == []
    assert [f.what for f in examine(config_of("needs_many")).findings if f.level.name == "WRONG"] == []


@pytest.mark.parametrize(
    ("whole", "message"),
    [
        ({"f1": SimpleNamespace(update=len, reset=len)}, "whole_metrics['f1'] has no method compute: give an object"),
        ({"f1": f1_by_hand}, "whole_metrics['f1'] has no method update or compute or reset: give an object with upd"),
        ({"f1": F1}, "whole_metrics['f1'] is a class: give an object with update(outputs, batch), compute() and"),
        ({"loss": F1()}, "whole_metrics has a metric named 'loss', but val/loss is the loss of the task: rename it"),
    ],
)
def test_an_object_that_is_no_metric_is_refused_when_the_task_is_made(whole, message):
    with pytest.raises(BadRequest, match=re.escape(message)):
        task_of(whole)
