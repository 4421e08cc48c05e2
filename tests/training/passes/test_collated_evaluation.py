"""A collated set with terms of its own is validated per batch, in the unit of training."""

import pytest
import torch
import torch.nn.functional as F
from still_life import CPU, run_state
from torch import nn
from tree_sets import Sequences, padded

from batchlab import BadRequest, Task
from batchlab.training.data.residence import prepare_set
from batchlab.training.passes.evaluation import ByBatch, ByExample, by_example, right_answers

N = 17


def steps_of(examples):
    """Padded steps, and a label for each step: -100 in the padding, and for all steps of an example of one step."""
    steps, labels = padded(examples)
    real = (steps.abs().sum(2) != 0) & ((steps.abs().sum(2) != 0).sum(1, keepdim=True) > 1)
    return steps, torch.where(real, (steps.sum(2) > 0).long(), -100), labels


def entropy(outputs, batch, reduction):
    return F.cross_entropy(outputs.flatten(0, 1), batch[1].flatten(), reduction=reduction)


def of_terms(outputs, batch):
    real = batch[1] != -100
    return {
        "right": (outputs.argmax(2) == batch[1])[real].float(),  # for each term
        "first": (outputs[:, 0].argmax(1) == batch[2]).float(),  # for each example
    }


def seen_of(reduction, eval_batch_size, metrics=of_terms):
    torch.manual_seed(0)
    model = nn.Linear(2, 2)
    task = Task(
        train=Sequences(4),
        val=Sequences(N),
        collate=steps_of,
        loss=lambda outputs, batch: entropy(outputs, batch, reduction),
        count=lambda batch: (batch[1] != -100).sum(),
        reduction=reduction,
        metrics=metrics,
    )
    state = run_state(model, task)
    return model, by_example(state, prepare_set(task.val, CPU, name="val", collate=task.collate), eval_batch_size)


@pytest.mark.parametrize("eval_batch_size", [1, 5, 100])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_each_quantity_is_the_mean_over_its_terms_however_the_set_is_divided(reduction, eval_batch_size):
    model, seen = seen_of(reduction, eval_batch_size)

    losses, right, first = [], [], []
    for i in range(N):  # without padding
        steps, labels, label = steps_of([Sequences()[i]])
        outputs = model(steps[0]).detach()
        first.append(float(outputs[0].argmax() == label[0]))
        if (labels != -100).all():
            losses += F.cross_entropy(outputs.double(), labels[0], reduction="none").tolist()
            right += (outputs.argmax(1) == labels[0]).tolist()
    assert len(losses) < sum(1 + i % 6 for i in range(N))  # some have no terms
    assert seen["loss"].mean == pytest.approx(sum(losses) / len(losses), rel=1e-6)
    assert seen["right"].mean == pytest.approx(sum(right) / len(right), rel=1e-12)
    assert seen["first"].mean == pytest.approx(sum(first) / N, rel=1e-12)
    assert isinstance(seen["loss"], ByBatch)
    assert seen["loss"].counts.sum() == len(losses)
    assert isinstance(seen["first"], ByExample)
    assert seen["first"].sums.tolist() == first


def test_terms_of_a_collated_batch_are_no_examples():
    _, seen = seen_of("none", 5)

    assert isinstance(seen["right"], ByBatch)
    with pytest.raises(BadRequest, match="need a metric 'accuracy' that is 0 or 1 for each example"):
        right_answers({"accuracy": seen["right"]})


def test_a_metric_that_fits_neither_terms_nor_examples_is_refused():
    with pytest.raises(BadRequest, match=r"the metric 'odd' is of shape .* return one value per term"):
        seen_of("none", 5, lambda outputs, batch: {"odd": outputs.new_zeros(3)})
