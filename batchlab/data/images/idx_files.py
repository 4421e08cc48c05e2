"""MNIST and other sets in its format: idx files of unsigned bytes, plain or gzipped."""

import gzip
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from batchlab import BadRequest
from batchlab.data.images.on_disk import Images, check_published, checked, damaged, missing, reading

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
PUBLISHED_EXAMPLES = {"train": 60_000, "t10k": 10_000}
MOST_BYTES = 2**30  # of a gzipped file, unzipped: a small file could fill the disk and the memory
CHUNK = 2**16  # bytes unzipped at a time


@dataclass(frozen=True)
class IdxFiles:
    """Four files in `<folder>/MNIST/raw`, where MNIST is the name of torchvision's class."""

    md5: Mapping[str, str]  # of the published files, unzipped; torchvision has those of the zipped ones

    def lacking(self, name: str, known: Any, folder: Path) -> BadRequest | None:
        home = folder / known.__name__ / "raw"
        absent = (home / file for file in FILES if _there(home / file) is None)
        return next((missing(name, path, FILES, "or the same files with .gz") for path in absent), None)

    def download(self, known: Any, folder: Path) -> object:
        return known(folder, download=True)

    def read(self, known: Any, folder: Path, classes: int) -> tuple[Images, Images]:
        home = folder / known.__name__ / "raw"
        train, train_labels, val, val_labels = (self._read(home / file) for file in FILES)
        if train.shape[1:] != val.shape[1:]:
            raise damaged(
                home / FILES[2], f"has images of {tuple(val.shape[1:])}, but training has {tuple(train.shape[1:])}"
            )
        return (
            checked(home / FILES[1], train.unsqueeze(1), train_labels, classes),
            checked(home / FILES[3], val.unsqueeze(1), val_labels, classes),
        )

    def _read(self, path: Path) -> Tensor:
        from torchvision.datasets.mnist import read_image_file, read_label_file

        axes, read = (3, read_image_file) if "images" in path.name else (1, read_label_file)
        found = plain = _there(path) or path
        with reading(found, "an idx file"), TemporaryDirectory() as aside:
            with gzip.open(found) if found != path else found.open("rb") as content:
                header, announced = _header(found, content, axes)
                if found != path:  # torchvision reads only plain files
                    plain = Path(aside, path.name)
                    _unzip(found, content, header, announced, plain)
            if (size := plain.stat().st_size) != announced:
                than = "more" if size > announced else "fewer"
                raise damaged(found, f"has {than} than the {announced} bytes that its header announces")
            values: Tensor = read(plain)
            if len(values) == PUBLISHED_EXAMPLES[path.name.partition("-")[0]]:
                check_published(found, self.md5[path.name], plain)
        return values


def _header(path: Path, content: BufferedIOBase, axes: int) -> tuple[bytes, int]:
    """The header of an idx file of unsigned bytes, and the size in bytes that it announces for the whole file."""
    start = bytes((0, 0, 8, axes))  # 8: unsigned bytes
    header = content.read(4 + 4 * axes)
    if len(header) < 4 + 4 * axes:
        raise damaged(path, f"has {len(header)} bytes, fewer than the {4 + 4 * axes} of an idx file's header")
    if not header.startswith(start):
        raise damaged(path, f"begins with {header[:4].hex(' ')}, but must begin with {start.hex(' ')}")
    sizes = struct.unpack(f">{axes}I", header[4:])
    if not all(sizes):
        raise damaged(path, f"announces no values in its header ({' x '.join(map(str, sizes))})")
    return header, len(header) + math.prod(sizes)


def _unzip(path: Path, content: BufferedIOBase, header: bytes, announced: int, plain: Path) -> None:
    """Copies `header` and the `content` after it, and at most one byte more than `announced`."""
    if announced > MOST_BYTES:
        most = f"a gzipped file may unzip to at most {MOST_BYTES} (if it is your own, unzip it)"
        raise damaged(path, f"announces {announced} bytes in its header, but {most}")
    left = announced + 1 - len(header)
    with plain.open("wb") as copy:
        copy.write(header)
        while chunk := content.read(min(CHUNK, left)):
            left -= copy.write(chunk)


def _there(path: Path) -> Path | None:
    zipped = path.with_name(path.name + ".gz")
    return path if path.is_file() else zipped if zipped.is_file() else None
