"""A task's `collate`: batches of exactly their examples, trained as in a plain loop, and resumed exactly."""

import pytest
import torch
import torch.nn.functional as F
from plain_loop import SIZES, trained, trained_plainly
from torch import nn
from torture.comparison import came_to, differences
from torture.kth_call import quick
from torture.tiny import folder_of, stop_at, tiny, train
from tree_sets import Graph, Recurrent, Sequences, joined, padded, ragged, shaken

from batchlab import Task
from batchlab.errors import BadRequest
from batchlab.recording.run_folder import read_record
from batchlab.training.data import residence
from batchlab.training.data.batches import Batches, augmented, gather, length, slices, split, subset
from batchlab.training.data.collated import Collated, IndivisibleBatch
from batchlab.training.data.fingerprints import data_fingerprint
from batchlab.training.data.order import row
from batchlab.training.data.residence import prepare_set
from batchlab.training.data.streaming import Streamed
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.passes.inputs import copied

CPU = CpuDevice()


def in_float64(examples):
    steps, labels = padded(examples)
    return steps.double(), labels


def model():
    torch.manual_seed(3)
    return Recurrent().double()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("where", ["kept", "streamed"])
def test_ragged_sequences_train_to_the_weights_of_a_plain_loop_over_a_dataloader(where, workers, monkeypatch):
    if where == "streamed":
        monkeypatch.setattr(residence, "RESIDENT_BYTES", 0)
    task = ragged()
    data = prepare_set(Sequences(), CPU, name="train", workers=workers, collate=in_float64)

    expected = trained_plainly(task, Sequences(), in_float64, 7, model())

    for one, other in zip(trained(task, data, 7, model()), expected, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-10)


def test_each_micro_batch_and_slice_is_collated_of_exactly_its_examples():
    asked = []

    def collate(examples):
        asked.append([len(steps) for steps, _ in examples])
        return padded(examples)

    data = prepare_set(Sequences(), CPU, name="train", collate=collate)
    lengths = [1 + i % 6 for i in range(23)]
    asked.clear()
    steps = [list(step) for step in Batches(data, micro_batch_sizes=SIZES, seed=0, total=16)]
    order = [lengths[i] for i in row(23, 0, 0, 16).tolist()]

    assert asked == [order[:3], order[3:6], order[6:8], order[8:11], order[11:14], order[14:16]]
    assert [[length(batch) for batch in step] for step in steps] == [[3, 3, 2], [3, 3, 2]]
    assert [len(batch.content[0][0]) for batch in steps[0]] == [max(part) for part in asked[:3]]
    asked.clear()
    assert [length(batch) for batch in slices(data, 9)] == [9, 9, 5]
    assert asked == [lengths[:9], lengths[9:18], lengths[18:]]
    chosen = subset(data, torch.tensor([4, 7]))
    assert torch.equal(next(slices(chosen, 9)).content[0], padded([Sequences()[4], Sequences()[7]])[0])


def test_a_librarys_own_batch_is_moved_and_handed_over():
    seen = []

    def forward(model, batch):
        seen.append(batch)
        sums = torch.zeros(len(batch.label), 2).index_add(0, batch.owner, batch.nodes)
        return model(sums)

    task = Task(
        train=Sequences(),
        val=Sequences(7),
        collate=joined,
        forward=forward,
        loss=lambda outputs, batch: F.cross_entropy(outputs, batch.label, reduction="none"),
    )
    torch.manual_seed(0)
    mine, theirs = nn.Linear(2, 2), nn.Linear(2, 2)
    theirs.load_state_dict(mine.state_dict())
    data = prepare_set(task.train, CPU, name="train", collate=task.collate)

    expected = trained_plainly(task, Sequences(), joined, 5, theirs)
    seen.clear()

    for one, other in zip(trained(task, data, 5, mine), expected, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-6)
    assert all(type(batch) is Graph and batch.device == torch.device("cpu") for batch in seen)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("made", ["gathered", "for a step"])
def test_a_part_of_a_collated_batch_is_collated_anew_of_its_examples(made, workers):
    data = prepare_set(Sequences(), CPU, name="train", workers=workers, collate=padded)
    which = [5, 2, 8, 0, 11]
    if made == "gathered":
        batch = gather(data, torch.tensor(which))
    else:
        which = row(23, 7, 0, 5).tolist()
        ((batch,),) = map(list, Batches(data, micro_batch_sizes=(5,), seed=7, total=5))

    def plainly(positions):
        return padded([Sequences()[which[i]] for i in positions])

    parts = split(batch, [1, 3, 1])
    assert [length(part) for part in parts] == [1, 3, 1]
    chosen = [*parts, *slices(batch, 2), gather(batch, torch.tensor([4, 0])), *slices(parts[1], 2)]
    positions = [[0], [1, 2, 3], [4], [0, 1], [2, 3], [4], [4, 0], [1, 2], [3]]
    for one, expected in zip(chosen, map(plainly, positions), strict=True):
        assert all(map(torch.equal, one.content, expected))
    assert split(batch, [5]) == (batch,)
    assert next(slices(batch, 5)) is batch


def test_a_part_has_the_random_numbers_of_its_micro_batch():
    data = prepare_set(Sequences(), CPU, name="train", collate=shaken)
    (micro,) = map(list, Batches(data, micro_batch_sizes=(3, 3, 2), seed=0, total=8))
    ((whole,),) = map(list, Batches(data, micro_batch_sizes=(8,), seed=0, total=8))

    for one, other in zip(split(whole, [3, 3, 2]), micro, strict=True):
        assert torch.equal(one.content[0], other.content[0])
    assert not torch.equal(split(whole, [1, 7])[1].content[0][2, 0], micro[1].content[0][0, 0])  # another collate


def test_a_changed_collated_batch_cannot_be_divided():
    batch = gather(prepare_set(Sequences(), CPU, name="train", collate=padded), torch.arange(4))

    for changed in (copied(batch), augmented(batch, lambda content, draws: content, 0, 0)):
        assert isinstance(changed, Collated)
        assert split(changed, [4]) == (changed,)
        for positions in ([0], [2, 3]):
            with pytest.raises(IndivisibleBatch, match="collate made, and that was changed afterwards, cannot be div"):
                gather(changed, torch.tensor(positions))
        with pytest.raises(IndivisibleBatch):
            split(changed, [2, 2])
        with pytest.raises(IndivisibleBatch):
            next(slices(changed, 1))


def test_tensors_in_memory_are_collated_row_by_row():
    x, y = torch.arange(12.0).view(6, 2), torch.arange(6)

    data = prepare_set((x, y), CPU, name="train", collate=lambda rows: torch.stack([a * b for a, b in rows]))

    assert torch.equal(gather(data, torch.tensor([5, 2])).content, torch.stack([x[5] * 5, x[2] * 2]))


def test_an_error_in_collate_names_the_examples():
    def collate(examples):
        return [][len(examples)]

    with pytest.raises(BadRequest, match="the task's collate fails for 1 example of the task's train"):
        prepare_set(Sequences(), CPU, name="train", collate=collate)


def test_a_fingerprint_of_a_collated_set_covers_every_example():
    def seen(kept, changed=None):
        examples = [Sequences()[i] for i in range(23)]
        if changed is not None:
            examples[changed][0][0, 0] += 1
        data = prepare_set(examples, CPU, name="train", collate=padded)
        return data_fingerprint(data if kept else Streamed(examples, CPU, name="train", collate=padded))

    assert seen(True) == seen(True)
    assert len({seen(True), seen(True, 22), seen(True, 3)}) == 3


@pytest.mark.parametrize("collate", ["padded", "shaken"])
@pytest.mark.parametrize("sampled", [False, True], ids=["permutation", "sampler"])
def test_a_collated_run_resumes_to_the_same_bits(tmp_path, collate, sampled):
    data = {"_target_": "tree_sets.ragged", "collate": collate, "sampled": sampled}

    def config(name, **changes):
        model = {"_target_": "tree_sets.Recurrent"}
        return tiny(tmp_path / name, batch_size=6, micro_batch_size=4, data=data, model=model, **changes)

    with quick():
        train(config("whole"))
        train(config("stopped", workers=2), stopping=stop_at(4))
        train(config("stopped"))
    whole, stopped = (came_to(folder_of(config(name))) for name in ("whole", "stopped"))

    assert differences(stopped, whole) == []
    order = read_record(folder_of(config("whole"))).environment.get("data_order")
    assert order == ("the task's sampler: 10 of 23 examples an epoch" if sampled else None)
