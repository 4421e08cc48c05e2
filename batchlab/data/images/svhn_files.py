"""SVHN's two MATLAB files."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from batchlab import BadRequest
from batchlab.data.images.on_disk import Images, check_published, damaged, missing, reading

PUBLISHED_EXAMPLES = {"train": 73_257, "test": 26_032}


class SvhnFiles:
    """`<folder>/train_32x32.mat` and `test_32x32.mat`; the 531,131 easier `extra` images are not used."""

    def lacking(self, name: str, known: Any, folder: Path) -> BadRequest | None:
        files = [known.split_list[split][1] for split in PUBLISHED_EXAMPLES]
        absent = (folder / file for file in files if not (folder / file).is_file())
        return next((missing(name, path, files, "MATLAB files of 32x32 digits") for path in absent), None)

    def download(self, known: Any, folder: Path) -> object:
        return [known(folder, split, download=True) for split in PUBLISHED_EXAMPLES]

    def read(self, known: Any, folder: Path, classes: int) -> tuple[Images, Images]:
        train, test = (
            self._read(folder / known.split_list[split][1], known.split_list[split][2], examples, classes)
            for split, examples in PUBLISHED_EXAMPLES.items()
        )
        return train, test

    def _read(self, path: Path, md5: str, published_examples: int, classes: int) -> Images:
        from scipy.io import loadmat

        with reading(path, "a MATLAB file"):  # as torchvision reads it, but not only for the published files
            content = loadmat(path, appendmat=False, variable_names=("X", "y"))
            images, labels = (np.asarray(content.get(key)) for key in ("X", "y"))
        if images.dtype != np.uint8 or images.shape[:-1] != (32, 32, 3) or not images.size:
            raise damaged(path, "holds no 'X' of 32 x 32 x 3 bytes for each example")
        n = images.shape[-1]
        if labels.shape != (n, 1) or labels.dtype.kind not in "uif" or not np.isin(labels, range(1, classes + 1)).all():
            raise damaged(path, f"holds no 'y' with a label from 1 to {classes} for each of its {n} images")
        if n == published_examples:
            check_published(path, md5)
        digits = labels[:, 0].astype(np.int64) % classes  # the digit 0 is written as 10
        return torch.from_numpy(np.ascontiguousarray(images.transpose(3, 2, 0, 1))), torch.from_numpy(digits)
