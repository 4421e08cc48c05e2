"""The usual tasks train like a plain loop of PyTorch in float64, and are validated in the same unit."""

import re

import pytest
import torch
import torch.nn.functional as F
from plain_defaults import configured

from batchlab import BadRequest, Task
from batchlab.instruments.panel import build_instruments
from batchlab.training import assembly
from batchlab.training.data.batches import row
from batchlab.training.devices.cpu import CpuDevice
from batchlab.worker import preflight
from batchlab.worker.check import fitting
from batchlab.worker.check.examination import examine

STEPS, N, N_VAL, SIDE = 20, 40, 17, 4
WEIGHTS = [0.5, 2.0, 7.0]


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classes(*shape, seed, ignored=None):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, shape, generator=generator)
    if ignored is not None:
        labels[torch.rand(shape, generator=generator) < 0.4] = ignored
    return labels


def vectors(labels, seed):
    return drawn(len(labels), 4, seed=seed), labels


def images(masks, seed):
    return drawn(len(masks), 2, SIDE, SIDE, seed=seed), masks


def masks(n, seed, ignored):
    found = classes(n, SIDE, SIDE, seed=seed, ignored=ignored)
    if ignored is not None:
        found[3] = ignored  # an image without terms
    return found


def weighted(ignored=None):
    return Task.classification(
        vectors(classes(N, seed=0, ignored=ignored), 1),
        vectors(classes(N_VAL, seed=2, ignored=ignored), 3),
        class_weights=WEIGHTS,
    )


def weighted_and_ignored():
    return weighted(ignored=-100)


def multilabel():
    return Task.multilabel(
        vectors((drawn(N, 3, seed=0) > 0.5).long(), 1), vectors((drawn(N_VAL, 3, seed=2) > 0.5).long(), 3)
    )


def segmented():
    return Task.segmentation(images(masks(N, 0, 255), 1), images(masks(N_VAL, 2, 255), 3))


def segmented_in_bytes():
    """Of uint8, in which -100 is 156."""
    return Task.segmentation(
        images(masks(N, 0, 0).to(torch.uint8), 1), images(masks(N_VAL, 2, 0).to(torch.uint8), 3), ignore_index=0
    )


def segmented_whole():
    return Task.segmentation(images(masks(N, 0, None), 1), images(masks(N_VAL, 2, None), 3))


class Net(torch.nn.Linear):
    def __init__(self):
        super().__init__(4, 3, dtype=torch.float64)


class Pixels(torch.nn.Conv2d):
    def __init__(self):
        super().__init__(2, 3, 3, padding=1, dtype=torch.float64)


def entropy(**how):
    return lambda outputs, labels: F.cross_entropy(outputs, labels.long(), **how)


def binary(outputs, labels):
    return F.binary_cross_entropy_with_logits(outputs, labels.double())


def accuracy(ignored=None):
    def of(outputs, labels):
        kept = labels != ignored if ignored is not None else torch.ones_like(labels, dtype=torch.bool)
        return {NAMES[outputs.dim()]: (outputs.argmax(1)[kept] == labels[kept]).double().mean().item()}

    return of


NAMES = {2: "val/accuracy", 4: "val/pixel_accuracy"}


def of_labels(outputs, labels):
    right = (outputs > 0).long() == labels
    return {
        "val/label_accuracy": right.double().mean().item(),
        "val/exact_match": sum(map(all, right.tolist())) / len(right),
    }


OF_WEIGHTS = torch.tensor(WEIGHTS, dtype=torch.float64)
KINDS = {
    "weighted": (Net, entropy(weight=OF_WEIGHTS), accuracy()),
    "weighted_and_ignored": (Net, entropy(weight=OF_WEIGHTS), accuracy(-100)),
    "multilabel": (Net, binary, of_labels),
    "segmented": (Pixels, entropy(ignore_index=255), accuracy(255)),
    "segmented_in_bytes": (Pixels, entropy(ignore_index=0), accuracy(0)),
    "segmented_whole": (Pixels, entropy(), accuracy()),
}


def config_of(kind, **changes):
    settings = {
        "data": {"_target_": f"{__name__}.{kind}"},
        "model": {"_target_": f"{__name__}.{KINDS[kind][0].__name__}"},
        "optimizer": {"_target_": "torch.optim.SGD", "momentum": 0.9},
        "default_epochs": None, "steps": STEPS, "batch_size": 10, "lr": 0.05, "lr_scaling": "none", "warmup": 0.0,
        "schedule": "constant", "weight_decay": 0.01, "clip_norm": None, "device": "cpu", "trust": ["torch"],
    }  # fmt: skip
    return configured(**(settings | changes))


@pytest.mark.parametrize(("micro_batch_size", "eval_batch_size"), [(10, 100), (4, 5)])
@pytest.mark.parametrize("kind", KINDS)
def test_it_trains_and_is_validated_like_a_plain_loop(kind, micro_batch_size, eval_batch_size):
    config = config_of(kind, micro_batch_size=micro_batch_size, eval_batch_size=eval_batch_size)
    session = assembly.assemble(config, assembly.build_data(config, CpuDevice()), build_instruments, note=print)

    measured = {m.name: m.value for m in session.train()}

    task, (_, loss, metrics) = globals()[kind](), KINDS[kind]
    model = assembly.build_model(config, task, CpuDevice())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    for start in range(0, STEPS * 10, 10):
        index = row(N, config.seed, start, 10)
        optimizer.zero_grad()
        loss(model(task.train[0][index]), task.train[1][index]).backward()
        optimizer.step()
    for ours, theirs in zip(session.state.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    outputs, labels = model(task.val[0]).detach(), task.val[1]
    expected = {"val/loss": loss(outputs, labels).item(), **metrics(outputs, labels)}
    assert {name: measured[name] for name in expected} == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_check_and_preflight_find_nothing_wrong(kind, monkeypatch):
    monkeypatch.setattr(fitting, "DTYPES", ())  # the weights are float64
    config = config_of(kind)

    assert preflight.examine([config])[0] == []
    assert [f"{f.what}: {f.advice}" for f in examine(config).findings if f.level.name == "WRONG"] == []


def test_they_offer_the_model_the_number_of_classes_and_the_shape_of_an_example():
    assert multilabel().model_args == {"num_classes": 3, "input_shape": (4,)}
    assert segmented().model_args == {"num_classes": 3, "input_shape": (2, SIDE, SIDE)}
    dataset = torch.utils.data.TensorDataset(*segmented().train)
    task = Task.segmentation(dataset, dataset)
    assert task.model_args == {}
    assert int(task.count(segmented().train)) == int((segmented().train[1] != 255).sum())


def test_a_set_whose_masks_ignore_nothing_is_counted_without_looking_at_the_masks():
    batch = segmented_whole().train
    assert type(segmented_whole().count(batch)) is int
    assert segmented_whole().count(batch) == batch[1].numel()


ONES = torch.ones(8, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: weighted_by([1.0, 2.0]), "class_weights has 2 weights, but the labels have 3 classes"),
        (lambda: weighted_by([1.0, -2.0, 1.0]), "class_weights must be one number for each class, at least 0"),
        (lambda: weighted_by([0.0, 0.0, 0.0]), "class_weights must be one number for each class, at least 0"),
        (lambda: weighted_by(WEIGHTS, loss=binary), "class_weights belongs to the loss of Task.classification, which"),
        (
            lambda: Task.multilabel((ONES, torch.arange(8)), (ONES, torch.arange(8))),
            "have shape (8,) and values from 0 to 7: give (examples, labels) of 0 and 1",
        ),
        (lambda: Task.multilabel((ONES, 3 * ONES), (ONES, ONES)), "values from 3 to 3: give (examples, labels) of 0"),
        (lambda: Task.segmentation((ONES, ONES), (ONES, ONES)), "are torch.float32: give the class of each pixel"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_give(make, message):
    with pytest.raises(BadRequest, match=re.escape(message)):
        make()


def weighted_by(weights, **changes):
    data = vectors(classes(N, seed=0), 1)
    return Task.classification(data, data, class_weights=weights, **changes)


def test_outputs_of_another_shape_are_refused_instead_of_broadcast():
    with pytest.raises(ValueError, match=r"outputs \(40, 1\) do not match labels \(40, 3\)"):
        multilabel().loss(torch.ones(N, 1), multilabel().train)
    with pytest.raises(ValueError, match=r"outputs \(40, 3\) do not match masks \(40, 4, 4\): outputs must be"):
        segmented().loss(torch.ones(N, 3), segmented().train)


def test_an_ignored_pixel_is_not_right_even_if_the_model_predicts_its_label():
    task = Task.segmentation(*[images(masks(N, 0, 1), 1)] * 2, ignore_index=1)
    outputs = F.one_hot(torch.tensor([[[1, 1, 0, 2]]]), 3).movedim(-1, 1).double()

    found = task.metrics(outputs, (None, torch.tensor([[[1, 0, 0, 2]]])))

    assert found["pixel_accuracy"].tolist() == [0.0, 0.0, 1.0, 1.0]


def one_by_label():
    return Task(
        train=multilabel().train,
        val=multilabel().val,
        loss=lambda outputs, batch: F.binary_cross_entropy_with_logits(outputs, batch[1].double(), reduction="none"),
    )


def one_by_pixel():
    return Task(train=segmented().train, val=segmented().val, loss=segmented().loss)


def one_by_pixel_in_its_shape():
    return Task(
        train=segmented_whole().train,
        val=segmented_whole().val,
        loss=lambda outputs, batch: F.cross_entropy(outputs, batch[1], reduction="none"),
    )


def classified_labels():
    return Task.classification(multilabel().train, multilabel().val)


def classified_masks():
    return Task.classification(segmented_whole().train, segmented_whole().val)


ADVICE = {
    "one_by_label": (Net, "one value for each label, but for 8 examples the task counts 8 terms: use Task.multilabel("),
    "one_by_pixel_in_its_shape": (Pixels, "one value for each pixel, but for 8 examples the task counts 8 terms: use"),
    "one_by_pixel": (Pixels, "one value for each pixel, but for 8 examples the task counts 8 terms: use"),
    "classified_labels": (Net, "use Task.multilabel(train, val): an example can have several classes"),
    "classified_masks": (Pixels, "use Task.segmentation(train, val, ignore_index=255), or for another loss write"),
}


@pytest.mark.parametrize("kind", ADVICE)
def test_check_names_the_task_that_fits(kind, monkeypatch):
    monkeypatch.setattr(fitting, "DTYPES", ())
    model, advice = ADVICE[kind]

    wrong = [
        f"{f.what}: {f.advice}"
        for f in examine(config_of("weighted", data={"_target_": f"{__name__}.{kind}"},
                                   model={"_target_": f"{__name__}.{model.__name__}"})).findings
        if f.level.name == "WRONG"
    ]  # fmt: skip

    assert len(wrong) == 1
    assert advice in wrong[0]
