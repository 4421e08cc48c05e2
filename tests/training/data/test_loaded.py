"""`Task.from_loaders`: batches of the user's loader, trained as in a plain loop, and resumed exactly."""

import random
import signal

import numpy as np
import pytest
import torch
from loader_sets import N_TRAIN, N_VAL, Loaders, Points, loaded, loss
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, random_split
from torture.comparison import came_to, differences
from torture.kth_call import quick
from torture.tiny import folder_of, stop_at, tiny, train

from batchlab import Task
from batchlab.errors import BadRequest
from batchlab.recording.run_folder import read_record
from batchlab.training.data.batches import Batches, gather, length, slices, subset
from batchlab.training.data.collated import Collated
from batchlab.training.data.fingerprints import data_fingerprint
from batchlab.training.data.order import stream_seed
from batchlab.training.data.residence import prepare_set
from batchlab.training.data.streaming import allowed_children
from batchlab.training.data.trees import tensors
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.precision import Precision
from batchlab.training.losses import Losses
from batchlab.training.updates.eager import Eager
from batchlab.worker.preflight import examine

CPU = CpuDevice()


def prepared(task, name="train"):
    return prepare_set(getattr(task, name), CPU, name=name)


def steps(data, sizes, n, position=0):
    return [
        [tensors(batch) for batch in step]
        for step in Batches(data, micro_batch_sizes=sizes, seed=5, total=n * sum(sizes), position=position)
    ]


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a, b) for x, y in zip(one, other, strict=True) for p, q in zip(x, y, strict=True)
        for a, b in zip(p, q, strict=True)
    )  # fmt: skip


@pytest.mark.parametrize(("kind", "workers"), [("shuffled", 0), ("shuffled", 2), ("iterable", 0), ("balanced", 2)])
def test_it_trains_to_the_weights_of_a_plain_loop_over_the_loader(kind, workers):
    task, size, n = loaded(kind, workers, noise=0.1), 4, 13
    torch.manual_seed(1)
    mine, theirs = nn.Linear(6, 3).double(), nn.Linear(6, 3).double()
    theirs.load_state_dict(mine.state_dict())
    data = prepared(task)
    made = task.train.make_loader.made
    made.clear()
    update = Eager(Losses(mine, task, Precision("fp32", CPU)), torch.optim.SGD(mine.parameters(), lr=0.1))
    for micro_batches in Batches(data, micro_batch_sizes=(size, size), seed=5, total=2 * size * n):
        update(micro_batches)
    passes = [seed for split, batch_size, seed in made if (split, batch_size) == ("train", size)]

    loader, batches = Loaders(kind, workers, noise=0.1), []
    for seed in passes:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        batches += [batch for batch in loader("train", size, seed) if len(batch[0]) == size]
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    for step in range(n):
        optimizer.zero_grad()
        for x, y in batches[2 * step : 2 * step + 2]:
            (nn.functional.cross_entropy(theirs(x), y, reduction="sum") / (2 * size)).backward()
        optimizer.step()

    assert len(set(passes)) == len(passes) == (3 if kind == "balanced" else 6)
    for one, other in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-10)


class DataModule:
    """With the methods of Lightning's."""

    batch_size = 1

    def train_dataloader(self):
        return DataLoader(Points(N_TRAIN), self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(Points(N_VAL), self.batch_size)


class Module(nn.Module):
    """With the method of Lightning's."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3).double()

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.layer(x), y)


def test_a_module_with_a_training_step_trains_as_in_a_plain_loop():
    data = DataModule()

    def make_loader(split, batch_size, seed):
        data.batch_size = batch_size
        return data.train_dataloader() if split == "train" else data.val_dataloader()

    def training_loss(model, batch):
        return model.training_step(batch, 0)

    task = Task.from_loaders(make_loader, training_loss=training_loss, reduction="mean")
    mine, theirs = Module(), Module()
    theirs.load_state_dict(mine.state_dict())
    update = Eager(Losses(mine, task, Precision("fp32", CPU)), torch.optim.SGD(mine.parameters(), lr=0.1))
    for micro_batches in Batches(prepared(task), micro_batch_sizes=(4,), seed=5, total=20):
        update(micro_batches)

    torch.manual_seed(stream_seed(5, "loader", 0) % 2**32)
    data.batch_size = 4
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    for number, batch in enumerate(data.train_dataloader()):
        if number < 5:
            optimizer.zero_grad()
            theirs.training_step(batch, number).backward()
            optimizer.step()

    assert torch.allclose(mine.layer.weight, theirs.layer.weight, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["shuffled", "iterable", "balanced", "ragged"])
def test_batches_are_the_same_wherever_a_run_resumes_and_whatever_is_drawn_meanwhile(kind):
    data = prepared(loaded(kind, noise=0.1))
    whole = steps(data, (3, 3), 9)
    before = torch.get_rng_state(), random.getstate()

    resumed = Batches(data, micro_batch_sizes=(3, 3), seed=5, total=54, position=24)
    rehearsed = [[tensors(batch) for batch in resumed.first()] for _ in range(2)]
    found = []
    for step in resumed:
        found.append([tensors(batch) for batch in step])
        torch.rand(3)
        random.random()

    assert same(found, whole[4:])
    assert same(rehearsed, whole[4:5] * 2)
    random.setstate(before[1])
    torch.set_rng_state(before[0])
    steps(data, (3, 3), 2)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_a_rehearsed_step_that_is_changed_in_place_is_read_again_unchanged():
    data = prepared(loaded("ragged"))
    batches = Batches(data, micro_batch_sizes=(4,), seed=5, total=40)
    expected = steps(data, (4,), 2)[:1]
    for batch in batches.first():
        batch.content[0].zero_()

    assert same([[tensors(batch) for batch in batches.first()]], expected)


def test_validation_reads_the_whole_set_the_same_each_time():
    data = prepared(loaded(), "val")

    assert [length(batch) for batch in slices(data, 4)] == [4, 4, 1]
    x = torch.cat([batch[0] for batch in slices(data, 4)])
    assert torch.equal(x, Points(N_VAL).x)
    assert length(data) == N_VAL


@pytest.mark.parametrize("kind", ["shuffled", "iterable", "ragged"])
def test_single_examples_are_read_by_index_for_what_needs_them(kind):
    data = prepared(loaded(kind))

    if kind == "ragged":
        assert isinstance(gather(data, torch.arange(4)), Collated)
    else:
        assert torch.equal(gather(data, torch.tensor([22, 3]))[0], Points(N_TRAIN).x[[22, 3]])
        assert torch.equal(next(slices(subset(data, torch.tensor([5, 9])), 9))[0], Points(N_TRAIN).x[[5, 9]])
    assert data_fingerprint(data) == data_fingerprint(prepared(loaded(kind)))
    assert data_fingerprint(data) != data_fingerprint(prepared(loaded(kind), "val"))


@pytest.mark.parametrize("kind", ["shuffled", "iterable", "balanced", "ragged"])
def test_a_run_resumes_to_the_same_bits(tmp_path, kind):
    data = {"_target_": "loader_sets.loaded", "kind": kind, "noise": 0.1}

    def config(name):
        model = {"_target_": "tree_sets.Recurrent"} if kind == "ragged" else {"dtype": "float64", "dropout": 0.2}
        return tiny(tmp_path / name, batch_size=6, micro_batch_size=3, data=data, model=model)

    with quick():
        train(config("whole"))
        train(config("stopped"), stopping=stop_at(4))
        train(config("stopped"))
    whole, stopped = (came_to(folder_of(config(name))) for name in ("whole", "stopped"))

    assert differences(stopped, whole) == []
    record = read_record(folder_of(config("whole")))
    n = 40 if kind == "balanced" else N_TRAIN
    assert record.environment["data_order"].startswith(f"that of the task's loader: {n} examples a pass, in batches of")
    assert any(f"{n % 3} example" in note and "not trained on" in note for note in record.notes)


def of(make_loader, **more):
    return Task.from_loaders(make_loader, loss=loss, **more)


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield torch.randn(6, dtype=torch.float64), 1


def unsized(split, batch_size, seed):
    return DataLoader(Endless(), batch_size)


def fixed(split, batch_size, seed):
    return DataLoader(Points(N_TRAIN), 8)


def short(split, batch_size, seed):
    return DataLoader(Points(N_TRAIN), batch_sampler=[range(batch_size), range(2)])


SHARED = torch.Generator()


def drifting(split, batch_size, seed):
    return DataLoader(Points(N_TRAIN), batch_size, shuffle=True, generator=SHARED)


def resplit(split, batch_size, seed):
    data, _ = random_split(Points(N_TRAIN), [16, 7])
    return DataLoader(data, batch_size)


@pytest.mark.parametrize(
    ("make_loader", "message"),
    [
        (lambda *_: [1, 2], "returned a list: it must return a torch.utils.data.DataLoader"),
        (lambda *_: DataLoader(Points(9), batch_size=None), "batch_size=None, whose batches cannot be counted"),
        (unsized, "Endless has no length: give it as train_size="),
        (fixed, "gave a batch of 8 examples: pass its second argument to the DataLoader"),
        (drifting, "gave two different batches for the same seed"),
        (resplit, "gave a loader of other data for another seed"),
    ],
)
def test_a_loader_that_cannot_be_used_is_refused_when_the_data_is_built(make_loader, message):
    with pytest.raises(BadRequest, match=message):
        prepared(of(make_loader))


def test_a_pass_with_too_few_whole_batches_is_refused():
    with pytest.raises(BadRequest, match=r"gave 1 of its batches with 5 examples in pass 1, but 23 examples make 4"):
        steps(prepared(of(short)), (5,), 4)


def test_endless_data_train_with_a_size():
    data = prepared(of(unsized, train_size=20))

    assert len(steps(data, (4,), 12)) == 12
    assert length(data) == 20


def test_validation_that_does_not_read_all_is_refused():
    def dropping(split, batch_size, seed):
        return DataLoader(Points(N_VAL), batch_size, drop_last=True)

    with pytest.raises(BadRequest, match=r"make_loader\('val', 4, seed\) gave 8 examples of 9"):
        list(slices(prepared(of(dropping), "val"), 4))
    with pytest.raises(BadRequest, match="gave more examples of 5"):
        list(slices(prepared(of(unsized, val_size=5), "val"), 4))


def test_unequal_micro_batches_are_refused_and_find_may_request_more_than_a_pass():
    data = prepared(loaded())

    with pytest.raises(BadRequest, match="batch_size=5 in micro-batches of 3 and 2 was requested"):
        steps(data, (3, 2), 2)
    assert [length(step[0]) for (*step,) in Batches(data, micro_batch_sizes=(30,), seed=5, total=60)] == [30, 30]


def test_a_sweep_refuses_unequal_micro_batches_before_its_first_point(tmp_path):
    data = {"_target_": "loader_sets.loaded"}

    problems, _ = examine([tiny(tmp_path, batch_size=5, accumulate=2, data=data, model={"dtype": "float64"})])

    assert [problem.partition(" was requested")[0] for problem in problems] == [
        "batch_size=5 in micro-batches of 3 and 2"
    ]


def test_what_the_loader_decides_is_refused_as_a_field():
    with pytest.raises(BadRequest, match="given collate, sampler, which the loader decides"):
        of(fixed, sampler=range, collate=list)
    with pytest.raises(BadRequest, match="val_size=0 was given"):
        of(fixed, val_size=0)


@pytest.mark.parametrize("data", [DataLoader(TensorDataset(torch.zeros(3, 2))), Endless()])
def test_a_loader_or_iterable_data_as_a_set_names_from_loaders(data):
    with pytest.raises(BadRequest, match=r"use Task\.from_loaders\(make_loader, loss=\.\.\.\)"):
        prepare_set(data, CPU, name="train")


def test_sigterm_waits_while_workers_start():
    with allowed_children():
        assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
