"""MNIST and what was published in its format: idx files of unsigned bytes, plain or gzipped."""

import gzip
import io
import math
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from batchlab.data.images.on_disk import (
    check_published,
    damaged,
    fetch_if_asked,
    in_a_line,
    located,
    missing,
    read_bytes,
)

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
PUBLISHED_EXAMPLES = {"train": 60_000, "t10k": 10_000}
CLASSES = 10
MOST_BYTES = 2**32  # what a gzipped file may claim to hold

Images = tuple[Tensor, Tensor]  # (examples, 1, height, width) uint8 and their labels (examples,) int64


def read_sets(
    name: str, torchvision_name: str, folder: str, download: bool, md5: Mapping[str, str]
) -> tuple[Images, Images]:
    """Training and test set of `<folder>/<torchvision_name>/raw`, where torchvision keeps them too.

    Files of fewer or more examples than were published are taken as they are; of as many, byte for byte only.
    """
    home = located(folder) / torchvision_name / "raw"

    def download_all() -> None:
        from torchvision import datasets

        getattr(datasets, torchvision_name)(located(folder), download=True)

    fetch_if_asked(name, download, all(_there(home / file) for file in FILES), download_all)
    found = []
    for file in FILES:
        path = _there(home / file)
        if path is None:
            raise missing(name, home / file, FILES, "or the same files with .gz")
        axes = 3 if "images" in file else 1
        found.append(_read_idx(path, axes, PUBLISHED_EXAMPLES[file.partition("-")[0]], md5[file]))
    train, train_labels, val, val_labels = found
    for images, labels, file in ((train, train_labels, FILES[1]), (val, val_labels, FILES[3])):
        if len(images) != len(labels):
            raise damaged(home / file, f"has {len(labels)} labels for {len(images)} images")
        if int(labels.max()) >= CLASSES:
            raise damaged(home / file, f"has a label {int(labels.max())}, and they are 0 to {CLASSES - 1}")
    if train.shape[1:] != val.shape[1:]:
        raise damaged(home / FILES[2], f"has images of {tuple(val.shape[1:])}, and training {tuple(train.shape[1:])}")
    return (train.unsqueeze(1), train_labels.long()), (val.unsqueeze(1), val_labels.long())


def _there(path: Path) -> Path | None:
    zipped = path.with_name(path.name + ".gz")
    return path if path.is_file() else zipped if zipped.is_file() else None


def _read_idx(path: Path, axes: int, published_examples: int, md5: str) -> Tensor:
    content = read_bytes(path)
    stream = gzip.GzipFile(fileobj=io.BytesIO(content)) if path.suffix == ".gz" else io.BytesIO(content)
    try:
        header = stream.read(4 + 4 * axes)
        sizes = [int.from_bytes(header[4 * axis : 4 * axis + 4], "big") for axis in range(1, axes + 1)]
        size = math.prod(sizes)
        if header[:4] != bytes((0, 0, 8, axes)) or not 0 < size <= MOST_BYTES:
            raise damaged(path, f"does not begin as an idx file of unsigned bytes with {axes} axes does")
        body = stream.read(size + 1)  # one more, so that the end is reached and gzip's own checksum looked at
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, f"cannot be unzipped ({in_a_line(error)})") from None
    if len(body) != size:
        more_or_less = "more" if len(body) > size else f"{len(body)}"
        raise damaged(path, f"says it has {size} values and has {more_or_less}")
    if sizes[0] == published_examples:
        check_published(path, header + body, md5)
    return torch.frombuffer(bytearray(body), dtype=torch.uint8).view(sizes)
