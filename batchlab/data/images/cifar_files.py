"""CIFAR's files (Krizhevsky 2009): the python format, which is pickles, and the binary one, which cannot run code."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from batchlab import BadRequest
from batchlab.data.images.on_disk import Images, checked, damaged, missing, reading

PIXELS = 3 * 32 * 32  # of an image, in this order
UNKNOWN_PICKLE = "differs from the published file, and is not opened, because a pickle can run any program"


@dataclass(frozen=True)
class CifarFiles:
    """Uses the format whose files are all there, python if both are. No checksums of the binary one are known."""

    binary_folder: str
    binary_train: Sequence[str]
    binary_val: Sequence[str]
    label_bytes: int  # before each image in the binary format; the last is the label that is used

    def lacking(self, name: str, known: Any, folder: Path) -> BadRequest | None:
        home, files = self._form(known, folder)
        other = folder / (self.binary_folder if home.name == known.base_folder else known.base_folder)
        absent = (home / file for file in files if not (home / file).is_file())
        return next((missing(name, path, files, f"or those of the other format in {other}") for path in absent), None)

    def download(self, known: Any, folder: Path) -> object:
        return known(folder, download=True)

    def read(self, known: Any, folder: Path, classes: int) -> tuple[Images, Images]:
        from torchvision.datasets.utils import check_integrity

        home, _ = self._form(known, folder)
        if home.name == self.binary_folder:
            return self._binary(home, self.binary_train, classes), self._binary(home, self.binary_val, classes)
        with reading(home, "CIFAR's python format"):
            for file, md5 in _published(known).items():
                # torchvision checks this too, but does not name the file.
                if not check_integrity(home / file, md5):
                    hint = f"put your own images into {folder / self.binary_folder}, in the binary format"
                    raise damaged(home / file, f"{UNKNOWN_PICKLE} ({hint})")
            sets = [known(folder, train=train) for train in (True, False)]
        train, val = (
            (torch.from_numpy(found.data.transpose(0, 3, 1, 2)), torch.tensor(found.targets)) for found in sets
        )
        return train, val

    def _form(self, known: Any, folder: Path) -> tuple[Path, Sequence[str]]:
        """Folder and files of the format that is complete, else of one that is there in part, else python's."""
        python = folder / known.base_folder, [*_published(known)]
        forms = [python, (folder / self.binary_folder, [*self.binary_train, *self.binary_val])]
        whole = [(home, files) for home, files in forms if all((home / file).is_file() for file in files)]
        return [*whole, *(form for form in forms if form[0].is_dir()), python][0]

    def _binary(self, home: Path, files: Sequence[str], classes: int) -> Images:
        record, parts = self.label_bytes + PIXELS, []
        for file in files:
            with reading(home / file, "bytes"):
                content = torch.from_numpy(np.fromfile(home / file, dtype=np.uint8))
            if len(content) % record:
                raise damaged(home / file, f"has {len(content)} bytes, which is not a multiple of {record}, an example")
            rows = content.view(len(content) // record, record)
            images, labels = rows[:, self.label_bytes :].reshape(-1, 3, 32, 32), rows[:, self.label_bytes - 1].long()
            parts.append(checked(home / file, images, labels, classes))
        return torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts])


def _published(known: Any) -> dict[str, str]:
    """Each pickle of the python form -> its MD5."""
    return dict((*known.train_list, *known.test_list, (known.meta["filename"], known.meta["md5"])))
