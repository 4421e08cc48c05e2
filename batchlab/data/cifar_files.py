"""CIFAR's files as published (Krizhevsky 2009): the python form, and the binary one, which holds no pickles."""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from batchlab.data.cifar_pickle import ByteArray, unpickled
from batchlab.data.images.on_disk import (
    check_published,
    damaged,
    fetch_if_asked,
    in_a_line,
    located,
    missing,
    read_bytes,
)

PIXELS = 3 * 32 * 32  # of an image, in this order

Images = tuple[Tensor, Tensor]  # (examples, 3, 32, 32) uint8 and their labels (examples,) int64


@dataclass(frozen=True)
class Published:
    """One of the two sets, as it was published."""

    name: str  # the data group's
    torchvision_name: str
    classes: int
    python_folder: str
    train: Mapping[str, str]  # python file -> MD5 of the published one
    val: Mapping[str, str]
    examples: Mapping[str, int]  # python file -> examples of the published one
    labels: str  # their key in the pickles
    binary_folder: str
    binary_train: Sequence[str]
    binary_val: Sequence[str]
    label_bytes: int  # before each image of the binary form; the last is the label that is meant

    @property
    def files(self) -> tuple[str, ...]:
        """All files of the python form."""
        return (*self.train, *self.val)


def read_sets(published: Published, folder: str, download: bool) -> tuple[Images, Images]:
    """Training and test set, of the python form where its folder is there, else of the binary one.

    Files of fewer or more examples than were published are taken as they are; of as many, byte for byte only (binary
    ones, of which no checksums were published, as they are).
    """
    home, binary = located(folder) / published.python_folder, located(folder) / published.binary_folder

    def download_all() -> None:
        from torchvision import datasets
        from torchvision.datasets.utils import download_and_extract_archive

        # Not its constructor, which unpickles with no restriction.
        known = getattr(datasets, published.torchvision_name)
        download_and_extract_archive(known.url, str(located(folder)), filename=known.filename, md5=known.tgz_md5)

    names = (*published.binary_train, *published.binary_val)
    in_python = all((home / file).is_file() for file in published.files)
    in_binary = all((binary / file).is_file() for file in names)
    fetch_if_asked(published.name, download, in_python or in_binary, download_all)
    if not in_python and (in_binary or (binary.is_dir() and not home.is_dir())):
        train, val = (
            [_binary_file(published, _found(published, binary / file, names, home)) for file in files]
            for files in (published.binary_train, published.binary_val)
        )
    else:
        train, val = (
            [
                _python_file(published, _found(published, home / file, published.files, binary), md5)
                for file, md5 in files.items()
            ]
            for files in (published.train, published.val)
        )
    return _joined(train), _joined(val)


def _found(published: Published, path: Path, files: Sequence[str], other_form: Path) -> Path:
    if not path.is_file():
        raise missing(published.name, path, files, f"or those of the other form into {other_form}")
    return path


def _python_file(published: Published, path: Path, md5: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    content = read_bytes(path)
    try:
        held = unpickled(content)
    except pickle.UnpicklingError as error:
        raise damaged(path, f"is no pickle of arrays ({in_a_line(error)})") from None
    data = held.get("data") if isinstance(held, dict) else None
    labels = held.get(published.labels) if isinstance(held, dict) else None
    images = data.values if isinstance(data, ByteArray) else None
    if images is None or images.shape[1:] != (PIXELS,):
        raise damaged(path, f"holds no 'data' of {PIXELS} bytes for each example")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise damaged(path, f"holds no '{published.labels}', a list of integers")
    if len(images) == published.examples[path.name]:
        check_published(path, content, md5)
    return _checked(published, path, images, labels)


def _binary_file(published: Published, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    content = np.frombuffer(read_bytes(path), dtype=np.uint8)
    record = published.label_bytes + PIXELS
    if len(content) % record:
        raise damaged(path, f"has {len(content)} bytes, which is no whole number of examples of {record}")
    rows = content.reshape(-1, record)
    return _checked(
        published, path, rows[:, published.label_bytes :], rows[:, published.label_bytes - 1].astype(np.int64).tolist()
    )


def _checked(
    published: Published, path: Path, images: NDArray[np.uint8], labels: list[int]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    if not labels or len(images) != len(labels):
        raise damaged(path, f"has {len(labels)} labels for {len(images)} images")
    if not 0 <= min(labels) <= max(labels) < published.classes:
        raise damaged(path, f"has labels {min(labels)} to {max(labels)}, and they are 0 to {published.classes - 1}")
    return images, np.array(labels, dtype=np.int64)


def _joined(parts: Sequence[tuple[NDArray[np.uint8], NDArray[np.int64]]]) -> Images:
    images = np.concatenate([images for images, _ in parts]).reshape(-1, 3, 32, 32)
    return torch.from_numpy(images), torch.from_numpy(np.concatenate([labels for _, labels in parts]))
