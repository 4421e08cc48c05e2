"""The published image sets, read from small files in their real formats; and wrong files."""

import gzip
import hashlib
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from image_files import (
    idx,
    poisoned,
    some_images,
    vouch_for,
    write_cifar,
    write_cifar_binary,
    write_mnist,
    write_svhn,
)
from plain_defaults import CONFIGS, configured, read

from batchlab import BadRequest, Task, targets
from batchlab.data import cifar10, cifar100, fake, fashion_mnist, mnist, svhn
from batchlab.data.images import idx_files, svhn_files
from batchlab.data.images.on_disk import fetch_if_requested
from batchlab.sweep.identity import run_id

N, N_VAL = 40, 12


Write = Callable[[str, Path], Path]


@pytest.fixture
def write(monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a small set of that name into a folder, with accepted pickles; returns the path of its files."""

    def written(name: str, folder: Path) -> Path:
        home = write_set(name, folder)
        if name.startswith("cifar"):
            vouch_for(home, monkeypatch)
        return home

    return written


def write_set(name: str, folder: Path) -> Path:
    shape = (1, 28, 28) if "mnist" in name else (3, 32, 32)
    classes = 100 if name == "cifar100" else 10
    train, val = some_images(N, shape, classes=classes), some_images(N_VAL, shape, classes=classes, seed=1)
    if name == "svhn":
        return write_svhn(folder, train, val)
    if name.startswith("cifar"):
        return write_cifar(folder, train, val, fine=name == "cifar100")
    return write_mnist(folder, train, val, name="MNIST" if name == "mnist" else "FashionMNIST")


LOAD: dict[str, Callable[..., Task]] = {
    "mnist": mnist.load,
    "fashion_mnist": fashion_mnist.load,
    "cifar10": cifar10.load,
    "cifar100": cifar100.load,
    "svhn": svhn.load,
}
each_set = pytest.mark.parametrize("name", LOAD)


def as_stored(standardised: torch.Tensor, whole: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Pixels converted back to 0..255, with NumPy's mean and deviation of each channel of the `whole` set."""
    means = whole.astype(np.float64).mean(axis=(0, 2, 3), keepdims=True)
    deviations = whole.astype(np.float64).std(axis=(0, 2, 3), keepdims=True)
    pixels = standardised.double().numpy() * deviations + means
    assert np.abs(pixels - pixels.round()).max() < 1e-3
    return pixels.round().astype(np.uint8)


# The content of the files is used unchanged


@each_set
def test_images_and_labels_are_those_in_the_files(name, tmp_path, write):
    write(name, tmp_path)

    task = LOAD[name](folder=str(tmp_path))

    shape, classes = ((1, 28, 28) if "mnist" in name else (3, 32, 32)), (100 if name == "cifar100" else 10)
    written, labels = some_images(N, shape, classes=classes)
    found = as_stored(task.train[0], written)
    order = found[:, 0, 0, 0]  # each image's number
    assert sorted(order) == list(range(N))
    assert np.array_equal(found, written[order])
    assert task.train[1].tolist() == [labels[i] for i in order]
    val_written, val_labels = some_images(N_VAL, shape, classes=classes, seed=1)
    assert np.array_equal(as_stored(task.val[0], written)[:, 1:], val_written[:, 1:])
    assert np.array_equal(as_stored(task.val[0], written), val_written)
    assert task.val[1].tolist() == val_labels
    assert (task.train[0].dtype, task.train[1].dtype) == (torch.float32, torch.int64)
    assert task.model_args == {"num_classes": classes, "input_shape": shape}
    assert task.augment is None


def test_both_formats_of_cifar_and_of_mnist_give_the_same_set(tmp_path, monkeypatch):
    train, val = some_images(N, (3, 32, 32)), some_images(N_VAL, (3, 32, 32), seed=1)
    for fine, load in ((False, cifar10.load), (True, cifar100.load)):
        vouch_for(write_cifar(tmp_path / "python", train, val, fine=fine), monkeypatch)
        write_cifar_binary(tmp_path / "binary", train, val, fine=fine)
        one, other = load(folder=str(tmp_path / "python")), load(folder=str(tmp_path / "binary"))
        for a, b in zip((*one.train, *one.val), (*other.train, *other.val), strict=True):
            assert torch.equal(a, b)
    train, val = some_images(N, (1, 28, 28)), some_images(N_VAL, (1, 28, 28), seed=1)
    write_mnist(tmp_path / "plain", train, val)
    write_mnist(tmp_path / "zipped", train, val, zipped=True)
    one, other = mnist.load(folder=str(tmp_path / "plain")), mnist.load(folder=str(tmp_path / "zipped"))
    assert torch.equal(one.train[0], other.train[0])


def test_the_complete_format_of_cifar_is_read(tmp_path):
    sets = some_images(N, (3, 32, 32)), some_images(N_VAL, (3, 32, 32), seed=1)
    home = write_cifar_binary(tmp_path, *sets, fine=False)
    (tmp_path / "cifar-10-batches-py").mkdir()
    assert len(cifar10.load(folder=str(tmp_path)).train[0]) == N
    (home / "data_batch_4.bin").unlink()
    with pytest.raises(BadRequest, match=r"^data=cifar10 needs .*batches-py/data_batch_1, .*other format in .*-bin"):
        cifar10.load(folder=str(tmp_path))
    (tmp_path / "cifar-10-batches-py").rmdir()
    with pytest.raises(BadRequest, match=r"^data=cifar10 needs .*-bin/data_batch_4\.bin, .*other format in .*-py"):
        cifar10.load(folder=str(tmp_path))


def test_a_smaller_training_set_is_a_fixed_choice_and_validation_stays(tmp_path, write):
    write("cifar10", tmp_path)
    whole, small = cifar10.load(folder=str(tmp_path)), cifar10.load(folder=str(tmp_path), train_size=10)

    assert torch.equal(small.train[0], whole.train[0][:10])
    assert torch.equal(small.train[1], whole.train[1][:10])
    assert torch.equal(small.val[0], whole.val[0])
    assert whole.train[1].tolist() != some_images(N, (3, 32, 32))[1]  # not the order of the files
    for size in (0, N + 1, True, "5", 2.0):
        with pytest.raises(BadRequest, match=rf"^data\.train_size=.* is invalid: cifar10 has {N} training examples"):
            cifar10.load(folder=str(tmp_path), train_size=size)


def test_wrong_labels_are_wrong_and_known_and_those_of_validation_right(tmp_path, write):
    write("mnist", tmp_path)
    right, task = mnist.load(folder=str(tmp_path)), mnist.load(folder=str(tmp_path), label_noise=0.25)

    assert task.corrupted is not None
    assert torch.equal(right.train[1] != task.train[1], task.corrupted)
    assert int(task.corrupted.sum()) == N // 4
    assert torch.equal(task.uncorrupted[1], right.train[1])
    assert torch.equal(task.val[1], right.val[1])


@each_set
def test_augmentation_is_the_tasks_and_changes_a_batch(name, tmp_path, write):
    write(name, tmp_path)
    task = LOAD[name](folder=str(tmp_path), crop=4, flip=True, cutout=8)
    assert task.augment is not None

    changed = task.augment(task.train, torch.arange(N))

    assert not torch.equal(changed[0], task.train[0])
    assert torch.equal(changed[1], task.train[1])


# Files that are not there


@each_set
def test_a_missing_file_is_one_line_that_says_which_files_to_put_where(name, tmp_path, write):
    home = write(name, tmp_path)
    files = sorted(path.name for path in home.iterdir() if path.is_file())
    assert len(files) == {"svhn": 2, "cifar10": 7, "cifar100": 3}.get(name, 4)
    for file in files:
        kept = (home / file).read_bytes()
        (home / file).unlink()
        with pytest.raises(BadRequest) as caught:
            LOAD[name](folder=str(tmp_path))
        message = str(caught.value)
        (home / file).write_bytes(kept)

        assert message.startswith(f"data={name} needs {home / file}, which does not exist: add data.download=true")
        assert all(other in message for other in files)
        assert "data.folder=" in message
        assert message.isprintable()


@each_set
def test_an_empty_folder_says_the_same(name, tmp_path):
    with pytest.raises(BadRequest, match=rf"^data={name} needs {tmp_path}/.*, which does not exist"):
        LOAD[name](folder=str(tmp_path))


def test_a_failed_download_is_reported_in_one_line_and_an_unneeded_one_is_not_tried():
    def how() -> None:
        raise URLError("[Errno -3] Temporary failure\nin name resolution")

    with pytest.raises(
        BadRequest, match=r"^data\.download=true could not download mnist: URLError: .*put them"
    ) as caught:
        fetch_if_requested("mnist", True, False, how)
    assert str(caught.value).isprintable()
    fetch_if_requested("mnist", True, True, how)
    fetch_if_requested("mnist", False, False, how)
    with pytest.raises(BadRequest, match=r"^data\.download=yes is invalid: use true or false"):
        fetch_if_requested("mnist", "yes", False, how)  # type: ignore[arg-type]


@pytest.mark.parametrize("folder", ["", None, 3])
def test_a_folder_is_a_name(folder):
    with pytest.raises(BadRequest, match=r"^data\.folder=.* is invalid: give the folder of the data sets"):
        mnist.load(folder=folder)


# Files that were cut off or changed


@each_set
def test_a_file_cut_off_anywhere_is_one_line_that_names_it(name, tmp_path, write):
    home = write(name, tmp_path)
    for path in sorted(path for path in home.iterdir() if path.is_file()):
        content = path.read_bytes()
        for cut in sorted({0, 1, 7, 17, len(content) // 2, len(content) - 1}):
            path.write_bytes(content[:cut])
            with pytest.raises(BadRequest) as caught:
                LOAD[name](folder=str(tmp_path))
            assert str(caught.value).startswith(f"{path} ")
            assert "it is incomplete, changed, or another file" in str(caught.value)
            assert str(caught.value).isprintable()
        path.write_bytes(content)


def loaded_or_refused(load: Callable[..., Task], folder: Path) -> Task | str:
    """The task, or the error message."""
    try:
        return load(folder=str(folder))
    except BadRequest as error:
        return str(error)


def test_a_zipped_file_cut_off_or_changed_anywhere_is_refused(tmp_path):
    raw = write_mnist(tmp_path, some_images(6, (1, 28, 28)), some_images(4, (1, 28, 28)), zipped=True)
    path = raw / "t10k-labels-idx1-ubyte.gz"
    content, as_written, refused = path.read_bytes(), mnist.load(folder=str(tmp_path)).val[1], 0
    for cut in range(len(content)):
        path.write_bytes(content[:cut])
        with pytest.raises(BadRequest, match=r"t10k-labels-idx1-ubyte\.gz .*it is incomplete"):
            mnist.load(folder=str(tmp_path))
    for place in range(10, len(content)):  # after gzip's header, whose time and name do not matter
        path.write_bytes(content[:place] + bytes((content[place] ^ 4,)) + content[place + 1 :])
        found = loaded_or_refused(mnist.load, tmp_path)
        if isinstance(found, str):
            assert found.startswith(f"{path} ")
            refused += 1
        else:
            assert torch.equal(found.val[1], as_written)  # deflate's padding bits do not matter
    assert refused >= len(content) - 12


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "svhn"])
def test_a_file_of_as_many_examples_as_were_published_is_taken_byte_for_byte_only(name, tmp_path, monkeypatch, write):
    from torchvision import datasets

    home = write(name, tmp_path)
    md5 = {p.name: hashlib.md5(p.read_bytes()).hexdigest() for p in home.iterdir() if p.is_file()}
    if name == "svhn":
        monkeypatch.setattr(svhn_files, "PUBLISHED_EXAMPLES", {"train": N, "test": N_VAL})
        split_list = {file.partition("_")[0]: ["", file, known] for file, known in md5.items()}
        monkeypatch.setattr(datasets.SVHN, "split_list", split_list)
    else:
        monkeypatch.setattr(idx_files, "PUBLISHED_EXAMPLES", {"train": N, "t10k": N_VAL})
        for file, known in md5.items():
            monkeypatch.setitem((mnist if name == "mnist" else fashion_mnist).MD5, file, known)
    LOAD[name](folder=str(tmp_path))  # as published
    for path in (p for p in home.iterdir() if p.is_file()):
        content = path.read_bytes()
        place = min(len(content) - 1, 300)  # in images, labels or their names
        path.write_bytes(content + b"x" if name == "svhn" else content[:place] + b"\x09" + content[place + 1 :])

        with pytest.raises(BadRequest) as caught:
            LOAD[name](folder=str(tmp_path))

        assert str(caught.value).startswith(f"{path} has as many examples as the published file, but another checksum")
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "train-images-idx3-ubyte",
            b"<html>not found</html>" * 9,
            "begins with 3c 68 74 6d, but must begin with 00 00 08 03: it is",
        ),
        (
            "train-images-idx3-ubyte",
            idx(np.zeros(99, dtype=np.uint8)),
            "begins with 00 00 08 01, but must begin with 00 00 08 03: it is",
        ),
        (
            "train-images-idx3-ubyte",
            bytes((0, 0, 13)) + idx(np.zeros((N, 4, 28), dtype=np.uint8))[3:],  # 32-bit floats
            "begins with 00 00 0d 03, but must begin with 00 00 08 03: it is",
        ),
        (
            "train-images-idx3-ubyte",
            idx(np.zeros((N, 28, 28), dtype=np.uint8)) + b"x",
            f"has more than the {16 + N * 28 * 28} bytes that its header announces: it is",
        ),
        (
            "train-images-idx3-ubyte",
            idx(np.zeros((N, 28, 28), dtype=np.uint8))[:-1],
            f"has fewer than the {16 + N * 28 * 28} bytes that its header announces: it is",
        ),
        (
            "train-images-idx3-ubyte",
            bytes((0, 0, 8, 3)) + b"\xff" * 12,
            f"has fewer than the {16 + (2**32 - 1) ** 3} bytes that its header announces: it is",
        ),
        (
            "train-images-idx3-ubyte",
            bytes((0, 0, 8, 3)) + b"\x01" * 3,
            "has 7 bytes, fewer than the 16 of an idx file's header: it is",
        ),
        (
            "train-images-idx3-ubyte",
            idx(np.zeros((N, 0, 28), dtype=np.uint8)),
            f"announces no values in its header ({N} x 0 x 28): it is",
        ),
        ("train-labels-idx1-ubyte", idx(np.zeros(N - 1, dtype=np.uint8)), f"has {N - 1} labels for {N} images"),
        (
            "train-labels-idx1-ubyte",
            idx(np.full(N, 10, dtype=np.uint8)),
            "has labels 10 to 10, but they must be 0 to 9",
        ),
        ("t10k-labels-idx1-ubyte", idx(np.full(N_VAL, 255, dtype=np.uint8)), "has labels 255 to 255"),
    ],
)
def test_files_that_are_not_mnist_are_refused(file, content, message, tmp_path, write):
    raw = write("mnist", tmp_path)
    (raw / file).write_bytes(content)

    with pytest.raises(BadRequest) as caught:
        mnist.load(folder=str(tmp_path))

    assert str(caught.value).startswith(f"{raw / file} {message}")
    assert "delete it and download it again (with data.download=true" in str(caught.value)
    assert str(caught.value).isprintable()


def test_training_and_validation_images_are_of_one_size(tmp_path):
    raw = write_mnist(tmp_path, some_images(N, (1, 28, 28)), some_images(N_VAL, (1, 28, 27)))

    with pytest.raises(BadRequest, match=rf"^{raw}/t10k-images-idx3-ubyte has images of \(28, 27\), but training"):
        mnist.load(folder=str(tmp_path))


@pytest.mark.parametrize(
    ("announced", "content", "message"),
    [
        (
            5,
            np.random.default_rng(0).bytes(2_000_000) + bytes(30_000_000),
            "has more than the 13 bytes that its header",
        ),
        (2**30 - 8, b"four", "has fewer than the 1073741824 bytes that its header"),
        (
            2**30 - 7,
            b"",
            "announces 1073741825 bytes in its header, but a gzipped file may unzip to at most 1073741824",
        ),
    ],
    ids=["longer", "shorter", "too long"],
)
def test_a_zipped_file_is_unzipped_no_further_than_its_header_announces(
    announced, content, message, tmp_path, monkeypatch, write
):
    raw = write("mnist", tmp_path)
    (raw / "train-labels-idx1-ubyte").unlink()
    path, unzipped, compressed = raw / "train-labels-idx1-ubyte.gz", [], []
    path.write_bytes(gzip.compress(bytes((0, 0, 8, 1)) + announced.to_bytes(4, "big") + content, 1))

    class Counted(gzip.GzipFile):
        def close(self) -> None:
            if not self.closed:
                unzipped.append(self.tell())
                compressed.append(self.fileobj.tell())
            super().close()

    monkeypatch.setattr(gzip, "open", Counted)
    loaded_or_refused(mnist.load, tmp_path)  # imports torchvision
    tracemalloc.start()
    try:
        refusal = loaded_or_refused(mnist.load, tmp_path)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert str(refusal).startswith(f"{path} {message}")
    assert peak_bytes < 1_000_000
    assert len(unzipped) == 2
    assert max(unzipped) <= 8 + min(announced, len(content)) + 1
    assert max(compressed) < 300_000  # Python's own buffers, of at most 128 KiB


# Pickles


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_changed_pickle_is_refused_before_it_is_opened(name, tmp_path, monkeypatch, write):
    home, trap = write(name, tmp_path), tmp_path / "it was run"
    pickle.loads(poisoned(trap))
    assert trap.exists()  # so the pickle does run code
    trap.rmdir()
    LOAD[name](folder=str(tmp_path))
    monkeypatch.setattr(pickle, "load", lambda *_, **__: pytest.fail("it was opened"))
    for path in home.iterdir():
        content = path.read_bytes()
        place = len(content) * 3 // 4
        one_bit = content[:place] + bytes((content[place] ^ 1,)) + content[place + 1 :]
        for changed in (poisoned(trap), one_bit, content + b".", content[:-1], b"cos\nsystem\n(U\x04truetR.", b""):
            path.write_bytes(changed)
            with pytest.raises(BadRequest) as caught:
                LOAD[name](folder=str(tmp_path))
            message = str(caught.value)
            assert message.startswith(f"{path} differs from the published file, and is not opened, because a pickle")
            assert message.isprintable()
            assert not trap.exists()
        path.write_bytes(content)


def test_own_images_can_be_used_in_the_binary_format_as_the_error_for_a_pickle_says(tmp_path):
    sets = some_images(N, (3, 32, 32)), some_images(N_VAL, (3, 32, 32), seed=1)
    home = write_cifar(tmp_path, *sets, fine=False)  # not accepted as the published files
    binary = tmp_path / "cifar-10-batches-bin"

    with pytest.raises(BadRequest, match=rf"^{home}/data_batch_1 .*put your own images into {binary}, in the binary"):
        cifar10.load(folder=str(tmp_path))

    for path in home.iterdir():
        path.unlink()
    write_cifar_binary(tmp_path, *sets, fine=False)
    assert len(cifar10.load(folder=str(tmp_path)).train[0]) == N


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes(3073 * 4 - 1), "which is not a multiple of 3073"),
        (bytes((10,)) + bytes(3072), "has labels 10 to 10, but they must be 0 to 9"),
        (b"", "has 0 labels for 0 images"),
    ],
)
def test_a_damaged_binary_file_is_refused(content, message, tmp_path):
    sets = some_images(N, (3, 32, 32)), some_images(N_VAL, (3, 32, 32))
    home = write_cifar_binary(tmp_path, *sets, fine=False)
    (home / "data_batch_3.bin").write_bytes(content)

    with pytest.raises(BadRequest, match=f"{home / 'data_batch_3.bin'} .*{message}"):
        cifar10.load(folder=str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X": None}, "holds no 'X'"),
        ({"y": None}, "holds no 'y' with a label from 1 to 10 for each of its 12 images"),
        ({"X": np.zeros((32, 32, 3, 12))}, "holds no 'X' of 32 x 32 x 3 bytes"),
        ({"X": np.zeros((32, 32, 12), dtype=np.uint8)}, "holds no 'X'"),
        ({"y": np.ones((11, 1), dtype=np.uint8)}, "holds no 'y'"),
        ({"y": np.zeros((12, 1), dtype=np.uint8)}, "holds no 'y' with a label from 1 to 10"),
        ({"y": np.full((12, 1), 11, dtype=np.uint8)}, "holds no 'y' with a label from 1 to 10"),
        ({"y": np.full((12, 1), {"a": 1}, dtype=object)}, "holds no 'y' with a label from 1 to 10"),
        ({"y": np.full((12, 1), 1 + 0j)}, "holds no 'y' with a label from 1 to 10"),
        ({"y": np.full((12, 1), 1.5)}, "holds no 'y' with a label from 1 to 10"),
    ],
)
def test_a_mat_file_of_something_else_is_refused(changes, message, tmp_path, write):
    from scipy.io import savemat

    write("svhn", tmp_path)
    images, labels = some_images(12, (3, 32, 32))
    held = {"X": images.transpose(2, 3, 1, 0), "y": np.array([[label or 10] for label in labels], dtype=np.uint8)}
    held = {key: value for key, value in (held | changes).items() if value is not None}
    savemat(tmp_path / "test_32x32.mat", held)

    with pytest.raises(BadRequest, match=f"test_32x32.mat .*{message}"):
        svhn.load(folder=str(tmp_path))


# Generated images


def nearest_mean_accuracy(task: Task) -> float:
    """The accuracy of a three-line classifier, without batchlab: the class whose mean training image is nearest."""
    inputs, labels = task.train
    means = torch.stack([inputs[labels == c].mean(0).flatten() for c in range(4)])
    return float((torch.cdist(task.val[0].flatten(1), means).argmin(1) == task.val[1]).float().mean())


FAKE: dict[str, Any] = {"train_size": 200, "val_size": 400, "image_shape": [3, 12, 10], "classes": 4, "signal": 0.3}


def test_generated_images_can_be_learnt_only_with_a_signal():
    assert nearest_mean_accuracy(fake.load(**FAKE)) > 0.9
    noise = nearest_mean_accuracy(fake.load(**FAKE | {"signal": 0.0}))
    assert abs(noise - 0.25) < 4 * (0.25 * 0.75 / 400) ** 0.5


def test_generated_images_have_the_requested_size_noise_and_signal():
    task = fake.load(**FAKE | {"train_size": 4000})
    inputs, labels = task.train

    assert tuple(inputs.shape) == (4000, 3, 12, 10)
    assert task.model_args == {"num_classes": 4, "input_shape": (3, 12, 10)}
    for c in range(4):
        of_class = inputs[labels == c]
        assert of_class.std(0).mean() == pytest.approx(1, abs=0.02)
        # A mean of some thousand images still has noise of variance 1/n in addition to the pattern of variance 0.3**2.
        spread = of_class.mean(0).var(unbiased=False) - 1 / len(of_class)
        assert float(spread) == pytest.approx(0.3**2, rel=0.15)
    assert torch.equal(fake.load(**FAKE).train[0], fake.load(**FAKE).train[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_size": 0}, r"data\.train_size=0 is invalid: give an integer of at least 1"),
        ({"classes": 1}, r"data\.classes=1 is invalid: give an integer of at least 2"),
        ({"image_shape": [32, 32]}, r"data\.image_shape=\[32, 32\] is invalid: give channels, height and width"),
        ({"image_shape": [3, 0, 32]}, r"data\.image_shape=.* is invalid"),
        ({"image_shape": "3,32,32"}, r"data\.image_shape=3,32,32 is invalid"),
        ({"image_shape": 32}, r"data\.image_shape=32 is invalid"),
        ({"signal": -1}, r"data\.signal=-1 is invalid: use 0 \(noise only\) or more"),
        ({"signal": float("nan")}, r"data\.signal=nan is invalid"),
        ({"signal": True}, r"data\.signal=True is invalid"),
        ({"crop": -1}, r"data\.crop=-1 is invalid"),
    ],
)
def test_invalid_generated_images_are_refused(changes, message):
    with pytest.raises(BadRequest, match=f"^{message}"):
        fake.load(**FAKE | changes)


# Together


@pytest.mark.parametrize("name", [*LOAD, "fake", "image_folder"])
def test_the_shipped_configs_fit_their_readers(name, tmp_path):
    keys = read(f"data/{name}.yaml")
    factory = targets.resolve(keys.pop("_target_"), Task, what="data")
    assert factory.__module__ == f"batchlab.data.{name}"  # the study's name depends on it
    targets.fitting(factory, keys, {"device": "cpu"}, what="data")
    assert (CONFIGS / f"data/{name}.yaml").read_text().startswith("# ")


def test_a_runs_id_depends_on_the_folder_of_the_files_but_not_on_downloading():
    def name(**changes: Any) -> str:
        return run_id(configured(data=read("data/cifar10.yaml") | changes, device="cpu"))

    assert name(download=True) == name()
    assert name(folder="/elsewhere") != name()
    assert name(crop=4) != name()
    own = {"_target_": "my_data.load", "folder": "a"}
    assert run_id(configured(data=own)) != run_id(configured(data=own | {"folder": "b"}))
