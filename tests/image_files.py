"""Writes small image sets in the file formats of the published ones, byte by byte where it matters."""

import gzip
import hashlib
import os
import pickle
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

Images = NDArray[np.uint8]  # (examples, channels, height, width)


def some_images(n: int, shape: Sequence[int], *, classes: int = 10, seed: int = 0) -> tuple[Images, list[int]]:
    """Random pixels, of which the first is the image's number, and labels that cycle through the classes."""
    images = np.random.default_rng(seed).integers(0, 256, size=(n, *shape), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(n)
    return images, [i * 7 % classes for i in range(n)]


def idx(values: NDArray[np.uint8]) -> bytes:
    """LeCun's format: two zeros, 8 for unsigned bytes, the number of axes, and their sizes in big-endian order."""
    return bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def write_mnist(
    folder: Path,
    train: tuple[Images, list[int]],
    val: tuple[Images, list[int]],
    *,
    name: str = "MNIST",
    zipped: bool = False,
) -> Path:
    """`<folder>/MNIST/raw` and its four files; returns it."""
    raw = folder / name / "raw"
    raw.mkdir(parents=True)
    for part, (images, labels) in (("train", train), ("t10k", val)):
        for kind, values in (("images-idx3", images[:, 0]), ("labels-idx1", np.array(labels, dtype=np.uint8))):
            content = idx(values)
            path = raw / f"{part}-{kind}-ubyte"
            if zipped:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
            else:
                path.write_bytes(content)
    return raw


def python2_pickle(images: Images, labels: Sequence[int], key: str) -> bytes:
    """A pickle as Python 2 wrote it for CIFAR, by hand: protocol 2, byte strings, names of NumPy 1."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes((len(value),)) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    rows = images.reshape(len(images), -1)
    minus_one = number(-1)
    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + b"K\x00K\x01tR"
    dtype += b"(K\x03" + text(b"|") + b"NNN" + minus_one + minus_one + b"K\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + text(b"b") + b"tR"
    array += b"(K\x01" + number(rows.shape[0]) + number(rows.shape[1]) + b"\x86" + dtype + b"\x89"
    array += text(rows.tobytes()) + b"tb"
    whole = b"](" + b"".join(number(label) for label in labels) + b"e"
    entries = text(b"batch_label") + text(b"training batch") + text(key.encode()) + whole + text(b"data") + array
    return b"\x80\x02}(" + entries + b"u."


def write_cifar(folder: Path, train: tuple[Images, list[int]], val: tuple[Images, list[int]], *, fine: bool) -> Path:
    """The python format of CIFAR-10, or of CIFAR-100 if `fine`; returns its folder."""
    home = folder / ("cifar-100-python" if fine else "cifar-10-batches-py")
    home.mkdir(parents=True)
    for name, (images, labels) in _cut(train, val, fine=fine).items():
        (home / name).write_bytes(python2_pickle(images, labels, "fine_labels" if fine else "labels"))
    meta, names = ("meta", "fine_label_names") if fine else ("batches.meta", "label_names")
    (home / meta).write_bytes(pickle.dumps({names: ["apple", "bear"]}, protocol=2))
    return home


def vouch_for(home: Path, patch: pytest.MonkeyPatch) -> None:
    """Makes torchvision, in this process, accept the pickles in `home` as the published ones."""
    from torchvision import datasets

    def md5(file: str) -> str:
        return hashlib.md5((home / file).read_bytes()).hexdigest()

    known = datasets.CIFAR100 if home.name == datasets.CIFAR100.base_folder else datasets.CIFAR10
    for files in ("train_list", "test_list"):
        patch.setattr(known, files, [[file, md5(file)] for file, _ in getattr(known, files)])
    patch.setattr(known, "meta", known.meta | {"md5": md5(known.meta["filename"])})


def write_cifar_binary(
    folder: Path, train: tuple[Images, list[int]], val: tuple[Images, list[int]], *, fine: bool
) -> Path:
    """The binary format; returns its folder."""
    home = folder / ("cifar-100-binary" if fine else "cifar-10-batches-bin")
    home.mkdir(parents=True)
    for name, (images, labels) in _cut(train, val, fine=fine).items():
        coarse = b"\x13" if fine else b""
        records = (coarse + bytes((label,)) + image.tobytes() for image, label in zip(images, labels, strict=True))
        (home / f"{name}.bin").write_bytes(b"".join(records))
    return home


def _cut(train: tuple[Images, list[int]], val: tuple[Images, list[int]], *, fine: bool) -> dict[str, Any]:
    if fine:
        return {"train": train, "test": val}
    parts = np.array_split(np.arange(len(train[1])), 5)
    batches = {f"data_batch_{k}": (train[0][p], [train[1][i] for i in p]) for k, p in enumerate(parts, 1)}
    return {**batches, "test_batch": val}


def write_svhn(folder: Path, train: tuple[Images, list[int]], val: tuple[Images, list[int]]) -> Path:
    """`train_32x32.mat` and `test_32x32.mat`, compressed like the published ones, with label 10 for the digit 0."""
    from scipy.io import savemat

    folder.mkdir(parents=True, exist_ok=True)
    for name, (images, labels) in (("train", train), ("test", val)):
        digits = np.array([[label or 10] for label in labels], dtype=np.uint8)
        held = {"X": images.transpose(2, 3, 1, 0), "y": digits}
        savemat(folder / f"{name}_32x32.mat", held, do_compression=True)
    return folder


def write_pictures(folder: Path, shape: tuple[int, int], *, each: int, classes: Sequence[str], seed: int = 0) -> None:
    """`<folder>/<class>/0.png`, ... in colour, of size `shape`: a brightness for each class, plus noise."""
    from PIL import Image

    generator = np.random.default_rng(seed)
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            level = 40 + 160 * label / max(1, len(classes) - 1)
            pixels = (level + generator.integers(-30, 31, size=(*shape, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def poisoned(path: Path) -> bytes:
    """A pickle that creates a folder when `pickle.load` reads it."""

    class Payload:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(path),))

    return pickle.dumps({"data": Payload(), "labels": []}, protocol=2)
