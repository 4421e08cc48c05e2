"""The contract for a task: breaches are found by passes of a few examples, and three checks report the same."""

import re

import pytest
import torch
import torch.nn.functional as F
from plain_defaults import configured

from batchlab import BadRequest, Task
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.precision import Precision
from batchlab.training.losses import Losses
from batchlab.training.passes.contract import DTYPES, GRADIENT, METRICS, Severity, first_breach, refuse
from batchlab.training.passes.contract_of_loss import ADDS_UP, BY_ITSELF, DIVIDED, ONE_PER_TERM
from batchlab.training.passes.contract_passes import Parts, training_pass, validation_pass
from batchlab.worker import preflight
from batchlab.worker.check import examination as check
from batchlab.worker.verify import examination as verify

REFUSED, WRONG, BETTER = Severity.REFUSED, Severity.WRONG, Severity.BETTER


def made(loss=None, model=None, dtype=torch.float32, **changes):
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0), dtype=dtype)
    task = Task.classification((x, (x[:, 0] > 0).long()), (x, (x[:, 0] > 0).long()), **changes)
    if loss is not None:
        task = Task.classification(task.train, task.val, loss=loss, **changes)
    torch.manual_seed(0)
    return Losses(model or torch.nn.Linear(4, 2), task, Precision("fp32", CpuDevice()))


def small(losses):
    return tuple(t[:8] for t in losses.task.train)


def mean(outputs, batch):
    return F.cross_entropy(outputs, batch[1])


def table(outputs, batch):
    return outputs[:, :1] - batch[1]


def as_many_labels_as_examples(outputs, batch):
    return F.binary_cross_entropy_with_logits(outputs.repeat(1, 4), torch.ones(len(outputs), 8), reduction="none")


def per_class(outputs, batch):
    return F.cross_entropy(outputs, batch[1], reduction="none").repeat(2)


def number(outputs, batch):
    return F.cross_entropy(outputs, batch[1]).item()


def detached(outputs, batch):
    return F.cross_entropy(outputs.detach(), batch[1], reduction="none")


def not_a_number(outputs, batch):
    return F.cross_entropy(outputs, batch[1], reduction="none") * float("nan")


def constant(outputs, batch):
    return 0 * outputs.sum(1)


def of_another(outputs, batch):
    return (ELSEWHERE * torch.ones(len(outputs))).square()


ELSEWHERE = torch.nn.Parameter(torch.ones(()))


@pytest.mark.parametrize(
    ("loss", "severity", "sentence"),
    [
        (number, REFUSED, "the task's loss returns a float: return a tensor of one loss per term, shape (8,)"),
        (
            mean,
            REFUSED,
            "the Task has reduction=none, but its loss is a scalar: remove reduction, and it is treated as the mean",
        ),
        (
            table,
            REFUSED,
            "the loss has shape (8, 8): broadcasting has combined every output with every target: give outputs",
        ),
        (
            as_many_labels_as_examples,
            REFUSED,
            "a batch of 8 examples counts as 8 terms, but its loss has shape (8, 8): return",
        ),
        (
            per_class,
            REFUSED,
            "a batch of 8 examples counts as 8 terms, but its loss has shape (16,): return one",
        ),
        (
            detached,
            REFUSED,
            "no gradient reaches the weights, because the loss has no autograd graph: remove .detach()",
        ),
        (of_another, REFUSED, "no gradient reaches any of the model's parameters: remove .detach()"),
        (
            not_a_number,
            WRONG,
            "the gradient is nan or inf at weight, bias, at the initial weights: look for a division",
        ),
        (constant, WRONG, "the gradient is zero everywhere: look for a constant output"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_loss_that_breaks_the_contract_is_found_and_refused_where_nothing_can_be_measured(loss, severity, sentence):
    losses = made(loss)
    clauses = (*ONE_PER_TERM, *GRADIENT)

    seen = training_pass(losses, small(losses)).completed()

    breach = first_breach(clauses, seen)
    assert breach is not None
    assert breach.sentence.startswith(sentence)
    assert breach.severity is severity
    if severity is not REFUSED:
        refuse(clauses, seen)  # it trains, and the outcome is a result
        return
    with pytest.raises(BadRequest) as refusal:
        refuse(clauses, seen)
    assert str(refusal.value) == breach.sentence


def test_a_task_that_keeps_the_contract_breaks_no_clause():
    losses = made()
    seen = training_pass(losses, small(losses)).completed()

    assert first_breach((*ONE_PER_TERM, *GRADIENT, *DTYPES), seen) is None
    assert first_breach(METRICS, validation_pass(losses, small(losses))) is None
    outputs = losses.model(small(losses)[0])
    plain = torch.autograd.grad(F.cross_entropy(outputs, small(losses)[1]), [*losses.model.parameters()])
    assert all(torch.allclose(found, own) for found, own in zip(seen.gradients.values(), plain, strict=True))
    assert all(p.grad is None for p in losses.model.parameters())


def test_the_place_and_message_of_the_users_error_are_known():
    def refuses(model, batch):
        raise RuntimeError("no, thanks")

    for changes, where in (({"forward": refuses}, "forward"), ({"loss": refuses}, "loss")):
        losses = made(**changes)
        seen = training_pass(losses, small(losses))
        assert seen.failed == where
        assert seen.words.startswith("RuntimeError: no, thanks (test_contract.py, line ")
        with pytest.raises(RuntimeError, match="no, thanks"):
            seen.completed()


def test_metrics_are_one_value_per_term_and_a_target_needs_their_direction():
    for metrics, severity, message in (
        ({"m": lambda out, batch: out.mean()}, REFUSED, "the metric 'm' is of shape () for 8 examples that count as 8"),
        (
            {"m": lambda out, batch: 0.5},
            REFUSED,
            "the metric 'm' is a float for 8 examples that count as 8 terms: retu",
        ),
        (
            {"m": lambda out, batch: out[:, 0]},
            BETTER,
            "it is unknown whether a higher m is better, so it cannot be used in a target: add higher_is_bett",
        ),
    ):
        losses = made(metrics=lambda out, batch, given=metrics: {name: of(out, batch) for name, of in given.items()})
        breach = first_breach(METRICS, validation_pass(losses, small(losses)))
        assert breach is not None
        assert breach.sentence.startswith(message)
        assert breach.severity is severity


def test_dtypes_that_are_not_float32_are_found():
    wide = made(dtype=torch.float64)
    cast = made(dtype=torch.float64, forward=lambda model, batch: model(batch[0].float()))
    double = made(model=torch.nn.Linear(4, 2).double(), dtype=torch.float64)
    found = [first_breach(DTYPES, training_pass(losses, small(losses))) for losses in (wide, cast, double)]

    message = [(breach.severity, breach.what) for breach in found if breach is not None]
    assert [severity for severity, _ in message] == [WRONG, BETTER, BETTER]
    assert message[0][1].startswith("tensor 0 of the data is float64, but the weights are float32: RuntimeError: ")
    assert message[1][1].endswith("but the weights are float32: it takes twice the memory without any benefit")
    assert message[2][1].startswith("the weights are float64 (weight and 1 more), so they are trained in it")


def test_a_loss_divided_by_its_count_is_distinguished_from_one_that_compares_examples():
    each = torch.tensor([1.0, 2.0, 3.0, 4.0])
    for whole, parts, expected in (
        (each / 4, [each[:2] / 2, each[2:] / 2], DIVIDED),
        (each.mean().expand(4), [each[:1], each[1:].mean().expand(3)], DIVIDED),
        (each + 1, [each[:2], each[2:]], BY_ITSELF),
        (each, [each[:2], each[2:3]], ADDS_UP),
    ):
        seen = Parts(whole, parts, tolerance=1e-3)
        breach = first_breach([ADDS_UP, DIVIDED, BY_ITSELF], seen)
        assert breach is not None
        assert breach.what == expected.what.format(whole=4, parts=3)


# The three checks


def averaged():
    return made(mean, reduction="none").task


def broadcast():
    return made(table).task


def cut():
    return made(detached).task


def config_of(data):
    return configured(
        data={"_target_": f"{__name__}.{data}"},
        model={"_target_": "torch.nn.Linear", "in_features": 4, "out_features": 2},
        trust=["torch"], device="cpu", batch_size=16, micro_batch_size=8,
    )  # fmt: skip


@pytest.mark.parametrize("data", ["averaged", "broadcast", "cut"])
def test_preflight_check_and_verify_report_the_same_breaches(data):
    config = config_of(data)

    problems, _ = preflight.examine([config])
    wrong = [f"{f.what}: {f.advice}" for f in check.examine(config).findings if f.level.name == "WRONG"]
    with pytest.raises(BadRequest) as refusal:
        verify.examine(config)

    assert len(problems) == len(wrong) == 1
    message = {re.sub(r"\b[38]\b", "all", text) for text in (*problems, *wrong, str(refusal.value))}  # that each passes
    assert len(message) == 1, message


class Counted(torch.nn.Linear):
    passes: list = []  # noqa: RUF012 - of the class: preflight builds the model

    def __init__(self):
        super().__init__(4, 2)

    def forward(self, x):
        self.passes.append((len(x), self.training))
        return super().forward(x)


def right():
    return made().task


def test_preflight_makes_one_pass_of_training_and_one_of_validation():
    Counted.passes.clear()
    config = configured(
        data={"_target_": f"{__name__}.right"}, model={"_target_": f"{__name__}.Counted"}, device="cpu", batch_size=16
    )

    problems, _ = preflight.examine([config])

    assert problems == []
    assert Counted.passes == [(2, False), (3, True), (3, False)]  # two examples show whether gradients are needed
