"""Trees of tensors: each container trains as in a plain loop over a DataLoader, and keeps its type."""

import dataclasses

import pytest
import torch
from plain_loop import trained, trained_plainly
from torch import nn
from torch.utils.data import Dataset
from tree_sets import KINDS, Item, Pair, Sequences, Trees, tree_task

from batchlab.errors import BadRequest
from batchlab.training.data.batches import Batches, gather, length, slices, split
from batchlab.training.data.fingerprints import data_fingerprint
from batchlab.training.data.host_rows import HostRows
from batchlab.training.data.order import row
from batchlab.training.data.residence import prepare_set
from batchlab.training.data.streaming import Streamed
from batchlab.training.devices.cpu import CpuDevice

CPU = CpuDevice()


def as_items(examples):
    """What a user of a DataLoader would write for a dataclass."""
    images, labels = [one.image for one in examples], [one.label for one in examples]
    made = object.__new__(Item)
    vars(made).update(image=torch.stack(images), label=torch.tensor(labels), name=[one.name for one in examples])
    return made


def without_none(examples):
    return torch.utils.data.default_collate([{k: v for k, v in one.items() if v is not None} for one in examples])


COLLATES = {"dataclass": as_items, "dict": without_none}


def fresh_model():
    torch.manual_seed(3)
    return nn.Linear(4, 2, dtype=torch.float64)


@pytest.mark.parametrize("where", ["held", "streamed", "on the host"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_tree_trains_to_the_weights_of_a_plain_loop_over_a_dataloader(kind, where):
    task = tree_task(kind)
    expected = trained_plainly(task, task.train, COLLATES.get(kind), 7, fresh_model())
    data = prepare_set(task.train, CPU, name="train")
    if where == "streamed":
        data = Streamed(task.train, CPU, name="train")
    elif where == "on the host":
        data = HostRows(data, CPU)

    for one, other in zip(trained(task, data, 7, fresh_model()), expected, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_containers_keep_their_type_however_a_batch_is_made(kind):
    one = Trees(kind)[0]
    held = prepare_set(Trees(kind), CPU, name="train")
    streamed = Streamed(Trees(kind), CPU, name="train", workers=1)
    index = torch.tensor([4, 0, 9])
    for data in (held, streamed, HostRows(held, CPU)):
        for batch in (gather(data, index), next(slices(data, 3)), *split(gather(data, index), (2, 1))):
            assert type(batch) is type(one)
            assert shape_of(batch) == shape_of(one)
        (micro_batches,) = Batches(data, micro_batch_sizes=(5, 2), seed=0, total=7)
        assert [length(batch) for batch in micro_batches] == [5, 2]
        assert all(type(batch) is type(one) for batch in micro_batches)
        assert [length(batch) for batch in slices(data, 9)] == [9, 9, 5]


def shape_of(tree):
    """The containers alone."""
    if isinstance(tree, dict):
        return {key: shape_of(value) for key, value in tree.items()}
    if dataclasses.is_dataclass(tree):
        return [type(tree), *(shape_of(getattr(tree, field.name)) for field in dataclasses.fields(tree))]
    if type(tree) in (tuple, Pair) or (type(tree) is list and any(isinstance(one, torch.Tensor) for one in tree)):
        return [type(tree), *map(shape_of, tree)]
    return None


def test_strings_and_none_ride_along_with_their_examples():
    held = prepare_set(Trees("dict"), CPU, name="train")
    names = [f"{i}.png" for i in row(23, 1, 0, 14).tolist()]
    for data in (held, Streamed(Trees("dict"), CPU, name="train", workers=2), HostRows(held, CPU)):
        seen = [batch for step in Batches(data, micro_batch_sizes=(3, 4), seed=1, total=14) for batch in step]

        assert [name for batch in seen for name in batch["name"]] == names
        assert isinstance(seen[0]["name"], list)
        assert seen[0]["mask"] == [None] * 3


def test_a_whole_set_may_hold_lists_and_constants():
    x, names = torch.arange(6.0).view(3, 2), ["a", "b", "c"]
    given = {"x": x, "names": names, "labels": [2, 0, 1], "unit": "mm", "sizes": (1.5, None)}

    batch = gather(prepare_set(given, CPU, name="train"), torch.tensor([2, 0]))

    assert batch["x"].tolist() == [[4.0, 5.0], [0.0, 1.0]]
    assert batch["names"] == ["c", "a"]
    assert torch.equal(batch["labels"], torch.tensor([1, 2]))
    assert (batch["unit"], batch["sizes"]) == ("mm", (1.5, None))
    assert given["names"] is names  # the user's own is not changed


def test_a_list_of_examples_is_read_like_a_dataset():
    examples = [{"x": torch.full((3,), float(i)), "y": i} for i in range(5)]

    data = prepare_set(examples, CPU, name="train")

    assert torch.equal(data["x"], torch.stack([one["x"] for one in examples]))
    assert torch.equal(data["y"], torch.arange(5))


class Cases(Dataset):
    def __init__(self, *examples):
        self.examples = examples

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        return self.examples[index]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (Sequences(), "RuntimeError: stack expects each tensor to be equal size, but got .*Pad and mask .*collate="),
        (Cases({"x": torch.ones(2)}, {"z": torch.ones(2)}), "KeyError: 'examples have the different keys .*collate="),
        (Cases((torch.ones(2), [1, 2]), (torch.ones(2), [1])), "ValueError: examples have a list of 1 or 2 values.*"),
        (Cases((torch.ones(2), "a"), (torch.ones(2), {"b": 1})), "TypeError: examples have values of different types"),
        (
            ([torch.ones(2, 3), torch.ones(4, 3)], torch.ones(2)),
            "different lengths: the first 2, the second 4, then 2; each must .*collate=",
        ),
        ((torch.ones(3, 2), object()), "holds Tensor, object: it must hold tensors"),
    ],
    ids=["ragged", "keys", "lengths", "kinds", "list of tensors", "object"],
)
def test_what_does_not_stack_is_told_to_pad_or_to_collate(data, line):
    with pytest.raises(BadRequest, match=line) as error:
        prepare_set(data, CPU, name="train")
    assert "\n" not in str(error.value)


def test_a_fingerprint_covers_every_leaf():
    def seen(kind, change=None):
        data = prepare_set(Trees(kind, 40), CPU, name="train")
        return data_fingerprint(data if change is None else change(data))

    def other_name(data):
        data["name"][39] = "another.png"
        return data

    def other_number(data):
        data["parts"]["b"][39, 2] += 1
        return data

    whole = [seen("dict"), seen("dict", other_name), seen("dict", other_number), seen("nested")]
    assert len(set(whole)) == 4
    assert seen("dict") == whole[0]
    x, y = torch.randn(9, 4), torch.arange(9)
    assert data_fingerprint((x, y)) == data_fingerprint({"x": x, "y": y})  # as it has been recorded so far
