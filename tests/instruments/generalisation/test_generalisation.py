"""The instruments of generalisation, compared with plain PyTorch, scikit-learn and hand-computed values."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import recall_score
from still_life import by_name, classified, run_state
from torture.tiny import tiny

from batchlab import BadRequest, Task
from batchlab.data import digits
from batchlab.instruments.generalisation.gap import Generalisation, clean_examples
from batchlab.instruments.generalisation.memorisation import Memorisation
from batchlab.instruments.generalisation.worst_class import WorstClass
from batchlab.instruments.validation import Validation
from batchlab.training.passes.evaluation import by_example, validated
from batchlab.worker.preflight import examine

OPTIONS = {"eval_every": 10, "eval_batch_size": 7}


def known(losses, right=None, val_losses=None, val_right=None, **changes):
    """A task whose losses and correctness are stored in its data, independent of the model."""
    right, val_losses = right or [0.0] * len(losses), val_losses or losses
    val_right = val_right or [0.0] * len(val_losses)
    return Task(
        train=(torch.tensor(losses), torch.tensor(right)),
        val=(torch.tensor(val_losses), torch.tensor(val_right)),
        forward=lambda model, batch: batch[0],
        loss=lambda outputs, batch: outputs,
        metrics=lambda outputs, batch: {"accuracy": batch[1]},
        **{"higher_is_better": {"accuracy": True}, **changes},
    )


def measured(kind, its_task, **options):
    return by_name(kind(**OPTIONS, **options).measure(run_state(torch.nn.Linear(1, 1), its_task)))


# example by example


@pytest.mark.parametrize("eval_batch_size", [1, 4, 100])
def test_each_example_is_judged_alone_in_eval_mode(eval_batch_size):
    task = classified(30, 23)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(), torch.nn.Linear(8, 3)
    )
    state = run_state(model.double(), task)
    seen = by_example(state, task.val, eval_batch_size)

    assert model.training
    model.eval()
    for i, (x, y) in enumerate(zip(*task.val, strict=True)):
        outputs = model(x[None])
        assert seen["loss"].sums[i] == pytest.approx(F.cross_entropy(outputs, y[None]).item(), rel=1e-9)
        assert seen["accuracy"].sums[i] == (outputs.argmax() == y)


def sequences(time_first):
    """6 sequences of 4 tokens with different losses. Padding: each first, another of the fifth, all of the sixth."""
    tokens = torch.arange(24.0).reshape(6, 4)
    counted = torch.ones(6, 4, dtype=torch.bool)
    counted[:, 0] = counted[4, 1] = counted[5] = False

    def loss(outputs, batch):
        losses, mask = (outputs.T, batch[1].T) if time_first else (outputs, batch[1])
        return losses[mask]

    return Task(
        train=(tokens, counted),
        val=(tokens, counted),
        forward=lambda model, batch: batch[0],
        loss=loss,
        count=lambda batch: int(batch[1].sum()),
    )


@pytest.mark.parametrize("time_first", [False, True])
def test_tokens_are_counted_for_the_example_they_belong_to(time_first):
    task = sequences(time_first)
    seen = by_example(run_state(torch.nn.Linear(1, 1), task), task.val, 3)["loss"]

    assert seen.sums.tolist() == [6.0, 18.0, 30.0, 42.0, 18 + 19.0, 0.0]
    assert seen.counts.tolist() == [3, 3, 3, 3, 2, 0]
    assert seen.means.tolist() == [2.0, 6.0, 10.0, 14.0, 18.5]
    assert seen.mean == pytest.approx((6 + 18 + 30 + 42 + 37) / 14)


def test_a_loss_that_is_averaged_is_refused():
    task = Task(train=(torch.ones(6, 1),), val=(torch.ones(6, 1),), loss=lambda outputs, batch: outputs.mean()[None])
    with pytest.raises(BadRequest, match=r"a batch of 4 examples counts as 4 terms, but its loss has shape \(1,\)"):
        by_example(run_state(torch.nn.Linear(1, 1), task), task.val, 4)


def test_a_loss_that_is_not_averaged_over_its_labels_is_refused_in_its_own_shape():
    task = Task(train=(torch.ones(6, 3),), val=(torch.ones(6, 3),), loss=lambda outputs, batch: outputs)
    with pytest.raises(BadRequest, match=r"a batch of 4 examples counts as 4 terms, but its loss has shape \(4, 3\)"):
        by_example(run_state(torch.nn.Linear(3, 3), task), task.val, 4)


def test_instruments_that_look_at_one_step_share_a_pass_and_weights_that_moved_are_passed_again():
    task = classified(30, 20)
    passes = []
    model = torch.nn.Linear(4, 3, dtype=torch.float64)
    model.register_forward_hook(lambda module, inputs, outputs: passes.append(len(outputs)))
    state = run_state(model, task)

    seen = [*Validation(**OPTIONS).measure(state), *WorstClass(task=task, **OPTIONS).measure(state)]
    assert passes == [7, 7, 6]
    list(Generalisation(**OPTIONS).measure(state))
    assert passes == [7, 7, 6] * 2  # and the training set

    with torch.no_grad():
        model.weight.mul_(2.0)
    again = by_name(Validation(**OPTIONS).measure(state))
    assert again["val/loss"].value != by_name(seen)["val/loss"].value
    state.step += 1
    validated(state, 20)
    assert passes[6:] == [7, 7, 6, 20]


# the gap


def test_the_gap_is_positive_if_validation_is_worse_for_both_losses_and_accuracies():
    task = known([1.0, 2.0, 3.0, 2.0], [1.0, 1.0, 1.0, 0.0], [4.0, 5.0, 6.0, 5.0], [1.0, 0.0, 0.0, 0.0])
    seen = {name: m.value for name, m in measured(Generalisation, task).items()}

    assert seen == {
        "clean_train/loss": 2.0,
        "clean_train/accuracy": 0.75,
        "gap/loss": 3.0,
        "gap/accuracy": 0.5,
        "val/hardest_decile_loss": 6.0,
    }


@pytest.mark.parametrize(("direction", "gap"), [({"accuracy": False}, -0.5), ({}, None)])
def test_a_gap_needs_to_know_which_way_is_worse(direction, gap):
    task = known([1.0] * 4, [1.0, 1.0, 1.0, 0.0], [1.0] * 4, [1.0, 0.0, 0.0, 0.0], higher_is_better=direction)
    seen = measured(Generalisation, task)
    assert (seen["gap/accuracy"].value if "gap/accuracy" in seen else None) == gap
    assert seen["clean_train/accuracy"].value == 0.75


def test_intervals_are_for_the_right_populations():
    rng = torch.Generator().manual_seed(0)
    losses = torch.rand(400, generator=rng)
    seen = measured(Generalisation, known(losses.tolist(), val_losses=losses[:100].tolist()))
    train, gap = seen["clean_train/loss"], seen["gap/loss"]

    # 100 of 400 drawn without replacement: the standard error of the whole set's mean is sqrt(3/4) of the usual one
    assert train.low < losses.mean() < train.high
    assert (train.high - train.low) / 2 == pytest.approx(1.984 * 0.2887 / 10 * 0.75**0.5, rel=0.1)
    assert gap.low < losses[:100].mean() - losses.mean() < gap.high
    assert (gap.high - gap.low) / 2 == pytest.approx(1.984 * 0.2887 / 10 * 1.75**0.5, rel=0.1)
    assert (train.n, gap.n) == (100, 100)


def test_a_fully_evaluated_training_set_has_no_uncertainty_but_validation_has():
    seen = measured(Generalisation, known([0.5] * 8, [1.0] * 8, [0.5] * 30, [1.0] * 30))
    train, gap = seen["clean_train/accuracy"], seen["gap/accuracy"]
    assert (train.low, train.value, train.high) == (1.0, 1.0, 1.0)
    assert (gap.low, gap.value) == (0.0, 0.0)
    assert gap.high == pytest.approx(1 - 0.025 ** (1 / 30))  # the exact rule of three


def test_the_clean_examples_are_as_many_as_validation_has_and_the_same_in_every_run():
    states = [run_state(torch.nn.Linear(1, 1), digits.load(label_noise=share)) for share in (0.0, 0.0, 0.3)]
    chosen = [clean_examples(state) for state in states]

    assert [(len(index), population) for index, population in chosen] == [(360, 1437), (360, 1437), (360, 1006)]
    assert torch.equal(chosen[0][0], chosen[1][0])
    assert len(set(chosen[0][0].tolist())) == 360
    assert not states[2].task.corrupted[chosen[2][0]].any()
    small = run_state(torch.nn.Linear(1, 1), known([1.0] * 5, val_losses=[1.0] * 9))
    assert sorted(clean_examples(small)[0].tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8])
def test_wrong_labels_are_left_out_whatever_number_says_so(dtype):
    wrong = torch.tensor([0, 1, 0, 1, 1, 0])
    task = known([1.0, 9.0, 1.0, 9.0, 9.0, 1.0], val_losses=[1.0] * 6, corrupted=wrong.to(dtype))

    assert measured(Generalisation, task)["clean_train/loss"].value == 1.0


@pytest.mark.parametrize("kind", [Generalisation, Memorisation, WorstClass])
@pytest.mark.parametrize("every", [0, -5, 2.5, True, "many"])
def test_an_invalid_interval_is_refused(kind, every):
    with pytest.raises(BadRequest, match=rf"every={every} is invalid: it must be an integer of at least 1, or null"):
        kind(**OPTIONS, every=every, **({} if kind is Generalisation else {"task": digits.load(label_noise=0.5)}))


def test_a_run_whose_training_labels_are_all_wrong_has_no_gap():
    seen = measured(Generalisation, known([1.0] * 4, corrupted=torch.ones(4, dtype=torch.bool)))
    assert list(seen) == ["val/hardest_decile_loss"]


# the hardest


def test_the_hardest_decile_is_the_mean_of_the_largest_tenth_of_losses():
    losses = [0.1 * i for i in range(40)]
    seen = measured(Generalisation, known(losses[::-1]))["val/hardest_decile_loss"]
    assert seen.value == pytest.approx((3.6 + 3.7 + 3.8 + 3.9) / 4)
    assert seen.n == 4
    assert seen.low < seen.value < seen.high


def test_the_hardest_of_token_tasks_are_sequences_not_tokens():
    assert measured(Generalisation, sequences(False))["val/hardest_decile_loss"].value == 18.5


# the worst class


def test_the_worst_class_is_scikit_learns_smallest_recall():
    task = classified(30, 200, classes=5)
    x, y = task.train
    model = torch.nn.Linear(4, 5, dtype=torch.float64)
    with torch.no_grad():  # least squares: usually but not always right
        model.weight.copy_(torch.linalg.lstsq(x, F.one_hot(y, 5).double()).solution.T)
        model.bias.zero_()

    (seen,) = WorstClass(task=task, **OPTIONS).measure(run_state(model, task))

    x, y = task.val
    recalls = recall_score(y, model(x).argmax(1), average=None, labels=y.unique())
    assert seen.name == "val/worst_class_accuracy"
    assert seen.value == pytest.approx(recalls.min())
    assert seen.n == int((y == y.unique()[recalls.argmin()]).sum())
    assert seen.low < seen.value < seen.high


def test_a_class_without_examples_is_left_out():
    task = known([1.0] * 4, val_right=[1.0] * 4, labels=lambda batch: torch.tensor([0, 7, 7, 9]))
    assert measured(WorstClass, task, task=task)["val/worst_class_accuracy"].value == 1.0


@pytest.mark.parametrize(
    "changes", [{}, {"labels": lambda batch: batch[1].long(), "higher_is_better": {}}], ids=["no labels", "no accuracy"]
)
def test_a_task_without_classes_is_refused_unless_it_may_be_left_out(changes):
    task = known([1.0] * 4, **changes)
    with pytest.raises(BadRequest, match=r"worst_class needs the class of each example .* ~instruments\.worst_class"):
        WorstClass(task=task, **OPTIONS)
    assert measured(WorstClass, task, task=task, required=False) == {}


def test_an_accuracy_that_is_neither_right_nor_wrong_is_refused():
    task = known([1.0] * 4, val_right=[0.3, 1.0, 0.0, 1.0], labels=lambda batch: batch[1].long())
    with pytest.raises(BadRequest, match="'accuracy' that is 0 or 1 for each example"):
        measured(WorstClass, task, task=task)


# memory


def lookup(task, labels):
    """A model that predicts `labels[i]` for digit i of the training set."""

    class Lookup(torch.nn.Linear):
        def forward(self, x):
            same = (x.flatten(1)[:, None] == task.train[0].flatten(1)[None]).all(dim=2)
            return F.one_hot(labels[same.int().argmax(dim=1)], 10).double()

    return Lookup(1, 1)


@pytest.mark.parametrize("train_size", [100, 800])
def test_memorisation_is_the_share_of_wrong_labels_that_are_predicted(train_size):
    task = digits.load(train_size=train_size, label_noise=0.5)
    given, right = task.train[1], digits.load(train_size=train_size).train[1]
    half = torch.where(torch.arange(train_size) % 2 == 0, given, right)  # every second one memorised
    n = min(360, round(0.5 * train_size))
    expected = {
        "by heart": (given, 1.0, 0.0),
        "in spite": (right, 0.0, 1.0),
        "half": (half, None, None),
    }
    for name, (answers, by_heart, in_spite) in expected.items():
        state = run_state(lookup(task, answers), task)
        seen = by_name(Memorisation(task=task, **OPTIONS).measure(state))
        wrong, true = (seen[f"clean_train/corrupted_{of}accuracy"] for of in ("", "true_"))
        assert {wrong.n, true.n} == {n}
        if name == "half":
            assert wrong.value + true.value == 1.0
            assert abs(wrong.value - 0.5) < 4 * (0.25 / n) ** 0.5
            assert wrong.low < wrong.value < wrong.high
        else:
            assert (wrong.value, true.value) == (by_heart, in_spite)
            assert wrong.high - wrong.low == pytest.approx(1 - 0.025 ** (1 / n))


def test_without_the_correct_labels_only_memorisation_is_measured():
    task = known([1.0] * 4, [1.0, 0.0, 1.0, 0.0], corrupted=torch.tensor([True, True, True, False]))
    seen = measured(Memorisation, task, task=task)
    assert {name: m.value for name, m in seen.items()} == {"clean_train/corrupted_accuracy": pytest.approx(2 / 3)}


@pytest.mark.parametrize(
    "changes",
    [{}, {"corrupted": torch.zeros(4, dtype=torch.bool)}, {"corrupted": torch.ones(4) > 0, "higher_is_better": {}}],
    ids=["unknown", "none", "no accuracy"],
)
def test_a_task_without_wrong_labels_is_refused_unless_it_may_be_left_out(changes):
    task = known([1.0] * 4, **changes)
    with pytest.raises(BadRequest, match=r"memorisation needs wrong labels .*data\.label_noise=0\.1"):
        Memorisation(task=task, **OPTIONS)
    assert measured(Memorisation, task, task=task, required=False) == {}


def test_what_was_corrupted_must_be_of_the_training_set():
    short = known([1.0] * 4, corrupted=torch.tensor([True, False]))
    with pytest.raises(BadRequest, match=r"corrupted has shape \(2,\) for 4 training examples"):
        measured(Memorisation, short, task=short)
    other = known([1.0] * 4, corrupted=torch.ones(4, dtype=torch.bool), uncorrupted=(torch.ones(3), torch.ones(3)))
    with pytest.raises(BadRequest, match="uncorrupted has 3 examples but its train has 4"):
        measured(Memorisation, other, task=other)


def test_a_sweep_is_refused_before_its_first_point(tmp_path):
    config = tiny(
        tmp_path, instruments={"memory": {"_target_": "batchlab.instruments.generalisation.memorisation.Memorisation"}}
    )
    problems, _ = examine([config])
    assert len(problems) == 1
    assert "needs wrong labels in the training set" in problems[0]
