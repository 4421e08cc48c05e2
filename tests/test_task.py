"""The contract for the user's data: the usual losses compared with their formulas."""

import math

import pytest
import torch
from torch import Tensor, nn

from batchlab import Task


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LABELS = torch.tensor([0, 2, 1, 2, 0, 1, 2])


def test_classification_is_cross_entropy_of_each_example_and_not_their_mean() -> None:
    logits = drawn(7, 3)
    task = Task.classification((drawn(7, 5), LABELS), (drawn(7, 5), LABELS))

    losses = task.loss(logits, (drawn(7, 5), LABELS))

    by_hand = [
        math.log(sum(math.exp(logit) for logit in row)) - row[label]
        for row, label in zip(logits.tolist(), LABELS.tolist(), strict=True)
    ]
    assert losses.shape == (7,)
    assert losses.tolist() == pytest.approx(by_hand, rel=1e-12)


def test_accuracy_is_whether_the_largest_logit_is_that_of_the_label() -> None:
    logits = torch.tensor([[0.1, 0.2, 0.0], [5.0, 1.0, 4.0], [-3.0, -1.0, -2.0]])
    task = Task.classification((drawn(3, 5), LABELS[:3]), (drawn(3, 5), LABELS[:3]))

    metrics = task.metrics(logits, (drawn(3, 5), torch.tensor([1, 2, 1])))

    assert metrics["accuracy"].tolist() == [1.0, 0.0, 1.0]
    assert task.higher_is_better == {"accuracy": True}


def test_classification_offers_the_model_the_classes_and_the_shape_of_an_example() -> None:
    train, val = (drawn(7, 1, 8, 8), LABELS), (drawn(2, 1, 8, 8), torch.tensor([0, 1]))

    assert Task.classification(train, val).model_args == {"num_classes": 3, "input_shape": (1, 8, 8)}


def test_a_class_that_only_validation_has_is_a_class() -> None:
    task = Task.classification((drawn(2, 5), torch.tensor([0, 1])), (drawn(1, 5), torch.tensor([8])))

    assert task.model_args["num_classes"] == 9


def test_classification_of_a_dataset_offers_nothing_it_would_have_to_read_the_data_for() -> None:
    dataset = torch.utils.data.TensorDataset(drawn(7, 5), LABELS)

    assert Task.classification(dataset, dataset).model_args == {}


def test_regression_is_squared_error_averaged_over_the_outputs_of_an_example() -> None:
    outputs, targets = drawn(4, 3), drawn(4, 3, seed=1)
    task = Task.regression((drawn(4, 5), targets), (drawn(4, 5), targets))

    losses = task.loss(outputs, (drawn(4, 5), targets))

    by_hand = [
        sum((o - t) ** 2 for o, t in zip(row, wanted, strict=True)) / 3
        for row, wanted in zip(outputs.tolist(), targets.tolist(), strict=True)
    ]
    assert losses.tolist() == pytest.approx(by_hand, rel=1e-12)
    assert task.model_args == {"num_outputs": 3, "input_shape": (5,)}


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_one_number_per_example_may_come_with_or_without_its_own_axis(shape: tuple[int, ...]) -> None:
    outputs, targets = drawn(*shape), drawn(4, seed=1)
    task = Task.regression((drawn(4, 5), targets), (drawn(4, 5), targets))

    losses = task.loss(outputs, (drawn(4, 5), targets))

    by_hand = [(o - t) ** 2 for o, t in zip(outputs.flatten().tolist(), targets.tolist(), strict=True)]
    assert losses.tolist() == pytest.approx(by_hand, rel=1e-12)
    assert task.model_args["num_outputs"] == 1


@pytest.mark.parametrize(("outputs", "targets"), [((4,), (4, 1)), ((4, 2), (4,)), ((4, 3), (4, 1)), ((1, 3), (4, 3))])
def test_outputs_that_would_only_fit_by_broadcasting_are_refused(
    outputs: tuple[int, ...], targets: tuple[int, ...]
) -> None:
    task = Task.regression((drawn(4, 5), drawn(*targets)), (drawn(4, 5), drawn(*targets)))

    with pytest.raises(ValueError, match="do not match targets"):
        task.loss(drawn(*outputs), (drawn(4, 5), drawn(*targets)))


def test_regression_onto_images_averages_over_all_their_pixels() -> None:
    targets = torch.zeros(2, 3, 4, 4, dtype=torch.float64)
    task = Task.regression((drawn(2, 5), targets), (drawn(2, 5), targets))

    losses = task.loss(torch.stack([torch.full((3, 4, 4), 1.0), torch.full((3, 4, 4), 3.0)]).double(), (None, targets))

    assert losses.tolist() == [1.0, 9.0]
    assert task.model_args["num_outputs"] == (3, 4, 4)


@pytest.mark.parametrize(("tokens", "context", "windows"), [(13, 4, 3), (14, 4, 3), (16, 4, 3), (17, 4, 4), (5, 4, 1)])
def test_windows_lie_side_by_side_and_every_token_is_predicted_from_the_one_before(
    tokens: int, context: int, windows: int
) -> None:
    text = torch.arange(100, 100 + tokens)

    inputs, targets = Task.language_model(text, text, context).train

    # By hand: no token is an input twice or a target twice, and a target is the token after its input.
    assert inputs.tolist() == [[100 + w * context + i for i in range(context)] for w in range(windows)]
    assert targets.tolist() == [[101 + w * context + i for i in range(context)] for w in range(windows)]


def test_a_language_model_has_one_loss_per_token() -> None:
    text = torch.tensor([0, 1, 2, 1, 0, 2, 2, 1, 0])
    task = Task.language_model(text, text, 4)
    batch = task.train
    logits = drawn(2, 4, 3)

    losses = task.loss(logits, batch)

    by_hand = [
        math.log(sum(math.exp(logit) for logit in row)) - row[token]
        for window, wanted in zip(logits.tolist(), batch[1].tolist(), strict=True)
        for row, token in zip(window, wanted, strict=True)
    ]
    assert losses.tolist() == pytest.approx(by_hand, rel=1e-12)
    assert task.count(batch) == 8 == len(losses)
    assert task.model_args == {"vocabulary": 3, "context": 4}


def test_a_text_shorter_than_a_window_is_reported() -> None:
    with pytest.raises(ValueError, match=r"4 tokens make no window of context=4"):
        Task.language_model(torch.arange(4), torch.arange(40), 4)


def test_a_token_that_only_validation_has_is_in_the_vocabulary() -> None:
    assert Task.language_model(torch.arange(5), torch.arange(90, 99), 4).model_args["vocabulary"] == 99


def test_a_tuple_is_passed_by_its_first_tensor_and_a_dict_by_its_names() -> None:
    class Difference(nn.Module):
        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return left - right

    task = Task(train={}, val={}, loss=lambda outputs, batch: outputs)
    left, right = drawn(3, 2), drawn(3, 2, seed=1)

    assert torch.equal(task.forward(nn.Identity(), (left, right)), left)
    assert torch.equal(task.forward(Difference(), {"right": right, "left": left}), left - right)


def test_terms_are_examples_unless_the_task_says_otherwise() -> None:
    task = Task(train={}, val={}, loss=lambda outputs, batch: outputs)

    assert task.count((drawn(6, 2), drawn(6, 3))) == 6
    assert task.count({"pixels": drawn(5, 2)}) == 5
    assert task.metrics(drawn(5), ()) == {}


def test_what_is_given_by_name_wins_over_what_a_constructor_chose() -> None:
    corrupted = torch.zeros(7, dtype=torch.bool)
    train = (drawn(7, 5), LABELS)

    task = Task.classification(train, train, model_args={"num_classes": 10}, corrupted=corrupted)

    assert task.model_args == {"num_classes": 10}
    assert task.corrupted is corrupted
    assert task.labels is not None
    assert torch.equal(task.labels(train), LABELS)


def test_two_tasks_can_be_compared_though_tensors_cannot() -> None:
    train = (drawn(7, 5), LABELS)
    task = Task.classification(train, train)

    assert task == task
    assert task != Task.classification((train[0].clone(), LABELS), train)
    assert {task: 1}[task] == 1
