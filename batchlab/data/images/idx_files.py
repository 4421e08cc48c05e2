"""MNIST and other sets in its format: idx files of unsigned bytes, plain or gzipped."""

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from batchlab import BadRequest
from batchlab.data.images.on_disk import Images, check_published, checked, damaged, missing, reading

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
PUBLISHED_EXAMPLES = {"train": 60_000, "t10k": 10_000}
MOST_BYTES = 2**30  # of a gzipped file, unzipped: a small file could fill the memory


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
        from torchvision.datasets.mnist import read_image_file, read_label_file

        home = folder / known.__name__ / "raw"
        train, train_labels, val, val_labels = (
            self._read(home / file, read_image_file if "images" in file else read_label_file) for file in FILES
        )
        if train.shape[1:] != val.shape[1:]:
            raise damaged(
                home / FILES[2], f"has images of {tuple(val.shape[1:])}, but training has {tuple(train.shape[1:])}"
            )
        return (
            checked(home / FILES[1], train.unsqueeze(1), train_labels, classes),
            checked(home / FILES[3], val.unsqueeze(1), val_labels, classes),
        )

    def _read(self, path: Path, read: Callable[[Path], Tensor]) -> Tensor:
        found = _there(path) or path
        with reading(found, "an idx file"), TemporaryDirectory() as aside:
            plain = found
            if found != path:  # torchvision reads only plain files
                plain = Path(aside, path.name)
                with gzip.open(found) as zipped:
                    plain.write_bytes(zipped.read(MOST_BYTES + 1))
                if plain.stat().st_size > MOST_BYTES:
                    raise damaged(found, f"unzips to more than {MOST_BYTES} bytes")
            values = read(plain)
            if len(values) == PUBLISHED_EXAMPLES[path.name.partition("-")[0]]:
                check_published(found, self.md5[path.name], plain)
        return values


def _there(path: Path) -> Path | None:
    zipped = path.with_name(path.name + ".gz")
    return path if path.is_file() else zipped if zipped.is_file() else None
