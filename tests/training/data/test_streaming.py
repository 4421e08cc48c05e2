"""Sets that are read during training: what is read depends on the seed and the data order alone."""

import multiprocessing
import os
import random
import select
import signal
import subprocess

import numpy as np
import pytest
import torch
from plain_defaults import read
from streamed_sets import Faulty, Large, Lazy, Noisy
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset
from torture.comparison import came_to, differences
from torture.kth_call import quick
from torture.tiny import folder_of, stop_at, tiny, train

from batchlab.errors import BadRequest
from batchlab.science.memory.largest_fit import Outcome
from batchlab.sweep.find.probing import Prober
from batchlab.training.assembly import data_fingerprint
from batchlab.training.data import residence, streaming
from batchlab.training.data.batches import Batches, gather, length, slices, subset
from batchlab.training.data.host_rows import HostRows
from batchlab.training.data.order import row
from batchlab.training.data.reading import COLLATE, independent_copy
from batchlab.training.data.residence import prepare_set
from batchlab.training.data.stream import Stream
from batchlab.training.data.streaming import Streamed
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.cuda import CudaDevice
from batchlab.worker.verify.examination import examine

CPU = CpuDevice()


def streamed(dataset, workers=0):
    return Streamed(dataset, CPU, name="train", workers=workers)


def as_numbers(batches):
    """The examples in order, each as plain numbers."""
    return [tuple(v.tolist() for v in example) for batch in batches for example in zip(*batch, strict=True)]


def handed(dataset, micro_batch_sizes, total, *, workers=0, seed=3, position=0):
    found = Batches(
        streamed(dataset, workers), micro_batch_sizes=micro_batch_sizes, seed=seed, total=total, position=position
    )
    return as_numbers(micro for step in found for micro in step)


@pytest.fixture
def small_pieces(monkeypatch):
    """Workers start at once and read three examples each, so pieces, batches and epochs end at different places."""
    monkeypatch.setattr(streaming, "PIECE_EXAMPLES", 3)
    monkeypatch.setattr(streaming, "STARTING_SECONDS", 0)


def test_order_and_content_do_not_depend_on_workers_batch_size_or_resuming(small_pieces):
    whole = handed(Noisy(), [1], 60)

    assert [example[0] for example in whole] == row(23, 3, 0, 60).tolist()
    assert len(set(whole)) == 60  # no example is read twice with the same random numbers
    assert handed(Noisy(), [4, 2], 60) == whole
    assert handed(Noisy(), [1], 60, workers=2) == whole
    assert handed(Noisy(), [7, 5], 60, workers=2) == whole
    assert handed(Noisy(), [12], 60, workers=1, position=24) == whole[24:]
    assert handed(Noisy(), [5], 60, seed=4) != whole


def test_the_first_batch_that_is_rehearsed_is_the_first_that_trains():
    batches = Batches(streamed(Noisy(), workers=2), micro_batch_sizes=[4, 4], seed=0, total=40, position=8)

    assert as_numbers(batches.first()) == as_numbers(next(iter(batches)))


def test_reading_does_not_change_the_runs_random_streams():
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    for workers in (0, 2):
        handed(Noisy(), [4], 40, workers=workers)
        as_numbers(slices(streamed(Noisy(), workers), 4))
        prepare_set(Noisy(), CPU, name="train")

    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_validation_and_instruments_read_the_same_each_time_whoever_reads(small_pieces):
    examples = streamed(Noisy())
    in_order = as_numbers(slices(examples, 23))

    assert [example[0] for example in in_order] == list(range(23))
    assert as_numbers(slices(examples, 5)) == in_order
    assert [length(batch) for batch in slices(examples, 5)] == [5, 5, 5, 5, 3]
    assert as_numbers(slices(streamed(Noisy(), workers=2), 5)) == in_order
    many, by_workers = streamed(Noisy(150)), streamed(Noisy(150), workers=2)
    assert as_numbers(slices(by_workers, 70)) == as_numbers(slices(many, 1))
    assert [length(batch) for batch in slices(by_workers, 70)] == [70, 70, 10]
    order = torch.arange(149, 29, -1)
    assert as_numbers([gather(by_workers, order)]) == as_numbers([gather(many, order)])
    index = torch.tensor([20, 3, 3, 7])
    assert as_numbers([gather(examples, index)]) == [in_order[i] for i in index]
    chosen = subset(subset(examples, index), torch.tensor([3, 0]))
    assert as_numbers(slices(chosen, 1)) == [in_order[7], in_order[20]]
    assert len(chosen) == 2


@pytest.mark.parametrize("kind", [tuple, dict])
def test_batches_are_of_the_kind_that_examples_are(kind):
    class Pairs(Dataset):
        def __len__(self):
            return 9

        def __getitem__(self, index):
            return (np.float32(index), index) if kind is tuple else {"x": np.float32(index), "y": index}

    for workers in (0, 1):
        (_,), (batch,) = Batches(streamed(Pairs(), workers), micro_batch_sizes=[4], seed=0, total=8)
        x, y = batch if kind is tuple else (batch["x"], batch["y"])
        assert type(batch) is kind
        assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
        assert x.tolist() == y.tolist() == row(9, 0, 4, 4).tolist()
        assert (x.storage_offset(), y.storage_offset()) == (0, 0)  # in its own memory: the same bits for all workers


def test_a_run_ends_at_the_same_bits_streamed_or_held_with_or_without_workers_and_resumed(tmp_path, monkeypatch):
    def config(name, **changes):
        data = {"_target_": "streamed_sets.Data"}
        return tiny(tmp_path / name, batch_size=6, accumulate=2, data=data, **changes)

    with quick():
        train(config("held"))
        monkeypatch.setattr(residence, "RESIDENT_BYTES", 0)
        train(config("streamed"))
        train(config("stopped", workers=2), stopping=stop_at(3))
        train(config("stopped", workers=0), stopping=stop_at(2))
        train(config("stopped", workers=1))

    expected = came_to(folder_of(config("held")))
    assert differences(came_to(folder_of(config("streamed"))), expected) == []
    assert differences(came_to(folder_of(config("stopped"))), expected) == []


def test_a_run_on_randomly_changed_examples_resumes_to_the_same_bits(tmp_path):
    shaken = {"data": {"_target_": "streamed_sets.Data", "shaken": 0.3}}
    with quick():
        train(tiny(tmp_path / "calm", data={"_target_": "streamed_sets.Data"}))
        train(tiny(tmp_path / "whole", **shaken))
        train(tiny(tmp_path / "stopped", workers=2, **shaken), stopping=stop_at(4))
        train(tiny(tmp_path / "stopped", **shaken))
    calm, whole, stopped = (came_to(folder_of(tiny(tmp_path / name))) for name in ("calm", "whole", "stopped"))

    assert differences(stopped, whole) == []
    assert whole["record"]["weights_fingerprint"] != calm["record"]["weights_fingerprint"]
    at_start = [line for line in calm["metrics"] if line[0] == "val/loss" and line[2] == 0]
    assert at_start == [line for line in whole["metrics"] if line[0] == "val/loss" and line[2] == 0]


CHEAP = ("training_loss", "validation", "gradient", "memory", "generalisation", "worst_class")


@pytest.mark.parametrize("only", [CHEAP, pytest.param((), marks=pytest.mark.slow)], ids=["cheap", "all"])
def test_instruments_measure_of_a_set_that_streams_what_they_measure_of_one_that_is_held(only, tmp_path, monkeypatch):
    instruments = read("instruments/default.yaml") | read("instruments/full.yaml")
    del instruments["defaults"]
    requested = {
        "data": {"_target_": "streamed_sets.Data"},
        "model": {"dropout": 0.25},
        "batch_size": 8,
        "steps": 5,
        "instruments": {name: entry for name, entry in instruments.items() if name in only or not only},
    }
    with quick():
        held = train(tiny(tmp_path / "held", **requested))
        monkeypatch.setattr(residence, "RESIDENT_BYTES", 0)
        streamed = train(tiny(tmp_path / "streamed", **requested))
    found, expected = (came_to(folder_of(tiny(tmp_path / name))) for name in ("streamed", "held"))

    assert (held.reason, streamed.reason) == ("", "")
    assert len(held.final) > (10 if only else 30)
    assert differences(found, expected) == []
    saved = "memory/saved_for_backward_bytes"
    assert streamed.final[saved] == held.final[saved]


def test_what_streams_and_what_is_held():
    held = TensorDataset(torch.arange(6.0), torch.arange(6))

    assert torch.equal(prepare_set(held, CPU, name="train")[0], torch.arange(6.0))
    assert isinstance(prepare_set(Noisy(), CPU, name="train", workers=2), Streamed)
    assert prepare_set(Noisy(), CPU, name="train", workers=2).workers == 2
    drawn_once = prepare_set(Noisy(), CPU, name="val")
    assert as_numbers([drawn_once]) == as_numbers(slices(streamed(Noisy()), 23))
    assert isinstance(prepare_set(Large(), CPU, name="val"), Streamed)


@pytest.mark.parametrize(("total", "free"), [(1000, 1000), (8000, 1000), (1000, 8000)])
def test_two_sets_share_the_room_of_a_cuda_device_however_they_are_given(total, free, monkeypatch):
    # 1,000 bytes that are all free, or the same free bytes on a larger device.
    monkeypatch.setattr(CudaDevice, "total_bytes", lambda device: total)
    monkeypatch.setattr(CudaDevice, "free_bytes", lambda device: free)
    cuda = CudaDevice(0)

    class There(torch.Tensor):  # stands for 300 bytes on the device
        device, nbytes = cuda.torch_device, 300

    train = (torch.zeros(40).as_subclass(There),)
    val = (torch.zeros(75),)  # 300 bytes: alone it fits
    monkeypatch.setattr(residence, "on_device", lambda read, device: read if isinstance(read, Stream) else "moved")

    for given in (val, TensorDataset(*val)):
        assert prepare_set(given, cuda, name="val") == "moved"
        assert isinstance(prepare_set(given, cuda, name="val", earlier=train), HostRows if given is val else Streamed)
        assert prepare_set(given, cuda, name="val", earlier=HostRows(val, CPU)) == "moved"
        assert prepare_set(given, CPU, name="val", earlier=train) == "moved"


def test_a_set_larger_than_memory_is_fingerprinted_by_a_few_examples():
    dataset, other = Large(), Large(n=9_999)
    found = prepare_set(dataset, CPU, name="train")
    seen = data_fingerprint(found)

    assert len(found) == 10_000
    assert len(dataset.reads) < 100
    assert seen == data_fingerprint(prepare_set(Large(), CPU, name="train"))
    assert seen != data_fingerprint(prepare_set(other, CPU, name="train"))
    half = Large()
    half.numbers //= 2
    assert seen != data_fingerprint(streamed(half))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_users_error_is_reported_in_one_line_with_its_example_and_place(workers):
    with pytest.raises(BadRequest) as error:
        handed(Faulty(), [8], 40, workers=workers)

    assert str(error.value).startswith(
        "example 17 of the task's train set cannot be read: KeyError: 'no such cat' (streamed_sets.py, line "
    )
    assert str(error.value).endswith(", in __getitem__)")
    assert "no such cat" in error.value.__cause__.args[0]
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 1])
def test_examples_of_two_shapes_are_reported_in_one_line(workers):
    line = "examples of the task's train set cannot be stacked: RuntimeError: stack expects each tensor to be equal"
    with pytest.raises(BadRequest, match=f"^{line}"):
        handed(Faulty("shape"), [8], 40, workers=workers)


def test_out_of_memory_in_a_worker_is_not_a_bad_request():
    from batchlab.training.devices.out_of_memory import is_out_of_memory

    with pytest.raises(MemoryError) as error:
        handed(Faulty("memory"), [8], 40, workers=1)
    assert is_out_of_memory(error.value)


def test_a_worker_that_dies_is_reported_in_one_line():
    with pytest.raises(
        BadRequest, match=r"worker process reading the task's train set died: DataLoader worker .*workers=0"
    ):
        handed(Faulty("die", worker_only=True), [8], 40, workers=2)
    assert not multiprocessing.active_children()


def test_a_worker_ends_only_on_its_parents_signal(small_pieces):
    batches = iter(Batches(streamed(Noisy(), workers=1), micro_batch_sizes=[4], seed=3, total=80))
    first = next(batches)
    (worker,) = multiprocessing.active_children()
    subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)  # as a batch system does for all processes of a job

    assert as_numbers(micro for step in [first, *batches] for micro in step) == handed(Noisy(), [4], 80)
    assert not worker.is_alive()


def test_workers_end_with_a_point_that_is_killed():
    reading, writing = os.pipe()
    point = os.fork()
    if point == 0:
        batches = iter(Batches(streamed(Noisy(), workers=1), micro_batch_sizes=[4], seed=3, total=80))
        next(batches)
        os.write(writing, str(multiprocessing.active_children()[0].pid).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(point, 0)
    worker = int(os.read(reading, 20))
    os.close(reading)
    os.close(writing)
    try:
        end = os.pidfd_open(worker)
    except ProcessLookupError:
        return
    assert select.select([end], [], [], 3)[0]  # by itself it checks every five seconds
    os.close(end)


def test_a_hanging_worker_is_ended_with_its_iterator(small_pieces, monkeypatch):
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.05)  # the timeout for it
    seed = next(seed for seed in range(99) if 17 in row(40, seed, 3, 3))  # in the second piece
    data = streamed(Faulty("hang", worker_only=True), workers=1)
    batches = iter(Batches(data, micro_batch_sizes=[1], seed=seed, total=40))
    next(batches)
    (worker,) = multiprocessing.active_children()
    del batches
    worker.join(10)

    assert worker.exitcode == 0


def test_a_file_that_is_opened_at_the_first_reading_is_not_shared_with_the_workers(tmp_path):
    numbers = np.random.default_rng(0).integers(0, 2**60, 50)
    (tmp_path / "records").write_bytes(numbers.tobytes())
    dataset = Lazy(str(tmp_path / "records"), 50)
    for whole in (dataset, Subset(dataset, range(50)), ConcatDataset([dataset])):
        found = streamed(whole, workers=2)
        assert gather(found, torch.arange(3))[0].tolist() == numbers[:3].tolist()
        assert dataset.file is None

        assert [value for (value,) in handed(whole, [4], 48, workers=2)] == numbers[row(50, 3, 0, 48)].tolist()
        assert dataset.file is None


class OpenBefore(Lazy):
    """Opens its file in __init__."""

    def __init__(self, path, n):
        super().__init__(path, n)
        self.file = open(path, "rb", buffering=0)  # noqa: SIM115, PTH123


class Mapped(Lazy):
    """Maps its file in __init__: a map has no position."""

    def __init__(self, path, n):
        super().__init__(path, n)
        self.numbers = np.memmap(path, dtype=np.int64, mode="r")

    def __getitem__(self, index):
        return (int(self.numbers[index]),)


def test_a_file_that_workers_would_share_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(residence, "RESIDENT_BYTES", 0)
    path = str(tmp_path / "records")
    (tmp_path / "records").write_bytes(bytes(8 * 50))

    for workers in (1, 2):
        with pytest.raises(BadRequest, match=r"the task's val set reads records through one .*workers=0") as error:
            prepare_set(OpenBefore(path, 50), CPU, name="val", workers=workers)
        assert "\n" not in str(error.value)
    alone = prepare_set(OpenBefore(path, 50), CPU, name="val", workers=0)
    assert isinstance(alone, Streamed)
    assert gather(alone, torch.arange(50))[0].tolist() == [0] * 50  # and the file was not closed
    for harmless in (Lazy, Mapped):
        assert isinstance(prepare_set(harmless(path, 50), CPU, name="val", workers=2), Streamed)


class Threads(Noisy):
    def __getitem__(self, index):
        return torch.get_num_threads(), index


def test_an_example_is_read_with_one_thread_in_any_process(monkeypatch):
    """The last bits of a sum over a large tensor depend on the number of threads."""
    mine = torch.get_num_threads()
    monkeypatch.setattr(streaming, "STARTING_SECONDS", 0)
    torch.set_num_threads(2)
    try:
        read = [handed(Threads(), [4], 8, workers=workers) for workers in (0, 1)]
        here = torch.get_num_threads()
    finally:
        torch.set_num_threads(mine)

    assert here == 2
    assert [threads for threads, _ in read[0] + read[1]] == [1] * 16


def test_a_dataset_that_cannot_be_copied_is_read_directly():
    class Lone(Noisy):
        def __copy__(self):
            raise TypeError("there is but one")

    lone = Lone()
    assert independent_copy(lone) is lone


class OwnGenerator(Noisy):
    generator = np.random.default_rng()

    def __getitem__(self, index):
        return self.generator.random(), index


class Given(Dataset):
    def __init__(self, example):
        self.example = example

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.example


class Endless(IterableDataset):
    def __iter__(self):
        yield 1

    def __len__(self):
        return 1


@pytest.mark.parametrize(
    ("dataset", "line"),
    [
        (OwnGenerator(), "train[0] differs between two reads with the same seed"),
        (Endless(), "the task's train set is a Endless: give a tuple or dict of tensors, or a map-style Dataset"),
        (7, "the task's train set is a int: give a tuple or dict of tensors"),
        (Given("cat"), "the task's train set gives examples without tensors or numbers: return (input, label), a dict"),
        (Given(("cat", None)), "the task's train set gives examples without tensors or numbers"),
        (Given((torch.zeros(3), object())), "examples of the task's train set cannot be stacked: TypeError: "),
        (TensorDataset(torch.zeros(0, 2)), "the task's train set is an empty TensorDataset"),
    ],
    ids=["generator of its own", "iterable", "no set", "one text", "text", "object", "empty"],
)
def test_a_set_that_cannot_be_read_is_refused_in_one_line(dataset, line):
    with pytest.raises(BadRequest) as error:
        prepare_set(dataset, CPU, name="train")
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


def test_a_set_without_labels_is_a_tensor_or_a_dataset_of_tensors():
    pictures = torch.arange(6.0).reshape(3, 2)

    for data in (pictures, residence.Rows(pictures)):
        made = prepare_set(data, CPU, name="train")
        assert torch.equal(made, pictures)
        assert torch.equal(gather(made, torch.tensor([2, 0])), pictures[[2, 0]])


def test_nan_equals_nan_when_reading_twice():
    assert prepare_set(Given((torch.tensor([float("nan")]), 1)), CPU, name="train")[0].isnan().all()


def test_a_point_of_a_sweep_may_have_workers_though_it_is_a_daemon(lab, tmp_path):
    (tmp_path / "my_set.py").write_text(MY_SET)
    requested = ["data._target_=my_set.load", "model._target_=my_set.Net", "steps=6", "batch_size=4", "seed=1"]
    alone = lab.one(*requested, "study=alone")
    with_workers = lab.one(*requested, "workers=2", "study=with_workers")
    dead = lab.one(*requested, "workers=2", "data.deadly=true", "study=dead")

    assert (alone.status, alone.reason) == ("completed", "")
    assert with_workers.weights_fingerprint == alone.weights_fingerprint
    assert (dead.status, dead.reason.count("\n")) == ("failed", 0)
    assert "worker (pid" in dead.reason


def test_find_and_verify_take_a_set_that_streams(lab, tmp_path):
    (tmp_path / "my_set.py").write_text(MY_SET)
    point = lab.point(
        "data._target_=my_set.load", "model._target_=my_set.Net", "batch_size=8", "accumulate=2", "workers=2"
    )
    lab.check(point)
    made = Prober(point.config, lab.server, limit=500 * 2**20, exact=False, log=tmp_path / "log")(8)

    assert (made.outcome, made.n_train, made.n_val, made.reason) == (Outcome.FITS, 24, 24, "")
    assert examine(point.config).same
    shaken = {"data": {"_target_": "streamed_sets.Data", "shaken": 0.3}, "model": {"dropout": 0.0}}
    assert examine(tiny(tmp_path, accumulate=2, **shaken)).same  # a user's own subclass of Task


MY_SET = """
import os, signal
import torch
from torch.utils.data import Dataset, get_worker_info
from batchlab import Task

class Shaken(Dataset):
    def __init__(self, deadly):
        self.deadly = deadly
    def __len__(self):
        return 24
    def __getitem__(self, index):
        if self.deadly and get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.randn(5) + index % 3, index % 3

def load(deadly=False):
    return Task.classification(Shaken(deadly), Shaken(False))

class Net(torch.nn.Linear):
    def __init__(self):
        super().__init__(5, 3)
"""


EXAMPLES, NUMBERS = 80_000, 2**14  # 64 KiB each, 5 GB in all


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / "corpus"
    with path.open("wb") as file:
        for start in range(0, EXAMPLES, 1000):
            block = np.zeros((1000, NUMBERS), dtype=np.float32)
            block[:, 0] = np.arange(start, start + 1000)
            block[:, 1:9] = np.random.default_rng(start).standard_normal((1000, 8))
            file.write(block.tobytes())
    yield path
    path.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_five_gigabytes_stream_through_a_run_in_the_memory_of_a_few_batches(workers, lab, tmp_path, corpus):
    (tmp_path / "corpus").symlink_to(corpus)
    (tmp_path / "my_corpus.py").write_text(MY_CORPUS)
    point = lab.point(
        *("data._target_=my_corpus.load", "model._target_=my_corpus.Net", "epochs=1", "batch_size=64"),
        *("eval_every=40000", "eval_batch_size=64", "lr=1e-4", f"workers={workers}", "checkpoint_seconds=null"),
    )
    lab.check(point)
    (record,) = lab.run(point).records

    seen = np.loadtxt(tmp_path / "seen", dtype=np.int64)
    assert (record.status, record.reason, record.examples) == ("completed", "", 72_000)
    assert set(seen[:, 0]) == set(range(72_000))
    own_bytes, batch_bytes = seen[:, 1], 64 * 4 * NUMBERS
    assert own_bytes.max() - own_bytes[0] < 16 * batch_bytes  # 64 MiB, of 4,700


MY_CORPUS = """
import numpy as np
import torch
from torch.utils.data import Dataset, Subset
from batchlab import Task

class Corpus(Dataset):
    def __init__(self):
        self.rows = np.memmap("corpus", dtype=np.float32, mode="r").reshape(-1, 2**14)
    def __len__(self):
        return len(self.rows)
    def __getitem__(self, index):
        return torch.from_numpy(np.array(self.rows[index])), int(self.rows[index, 1] > 0)

def load():
    corpus = Corpus()
    return Task.classification(Subset(corpus, range(72_000)), Subset(corpus, range(72_000, 80_000)))

class Net(torch.nn.Module):
    '''Records which examples it trains on, and the private memory of this process, without pages of files.'''
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 2)
    def forward(self, x):
        if torch.is_grad_enabled():
            lines = open("/proc/self/status").read().splitlines()
            own = sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem"))) * 1024
            with open("seen", "a") as seen:
                seen.writelines(f"{int(index)} {own}\\n" for index in x[:, 0])
        return self.layer(x[:, 1:9])
"""
ONE_ENTRY = (
    "; each must have one entry for each example. Single examples of different sizes go into a Dataset or a list. "
    + COLLATE
)


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        (
            (150, 140),
            "the tensors of the task's train set have different lengths: the first 150, the second 140" + ONE_ENTRY,
        ),
        (
            (3, 3, 5),
            "the tensors of the task's train set have different lengths: the first 3, the second 3, then 5" + ONE_ENTRY,
        ),
        ((0, 0), "the task's train set is empty"),
    ],
)
def test_tensors_that_are_no_set_are_refused_in_their_order(sizes, says):
    with pytest.raises(BadRequest) as caught:
        prepare_set(tuple(torch.zeros(size) for size in sizes), CPU, name="train")
    assert str(caught.value) == says
