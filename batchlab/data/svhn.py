"""SVHN: 99,289 street view house numbers, 32x32, cut to one digit (Netzer et al. 2011)."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from batchlab import Task
from batchlab.data.images.image_task import image_task
from batchlab.data.images.on_disk import (
    check_published,
    damaged,
    fetch_if_asked,
    in_a_line,
    located,
    missing,
    read_bytes,
)

# File -> MD5 and examples of the published one.
FILES = {
    "train_32x32.mat": ("e26dedcc434d2e4c54c9b2d4a06d8373", 73_257),
    "test_32x32.mat": ("eb5a983be6a315427106f1b164d9cef3", 26_032),
}
CLASSES = 10


def load(
    folder: str = "data",
    download: bool = False,
    train_size: int | None = None,
    label_noise: float = 0.0,
    crop: int = 0,
    flip: bool = False,
    cutout: int = 0,
) -> Task:
    """Images (examples, 3, 32, 32), standardised, and their digits, from `<folder>/train_32x32.mat` and `test_...`.

    The test set is for validation; the 531,131 easier `extra` images are not used.
    """
    home = located(folder)

    def download_all() -> None:
        from torchvision.datasets import SVHN
        from torchvision.datasets.utils import download_url

        for url, name, md5 in (SVHN.split_list[split] for split in ("train", "test")):
            download_url(url, str(home), name, md5)

    fetch_if_asked("svhn", download, all((home / name).is_file() for name in FILES), download_all)
    train, val = (_read(home / name, *published) for name, published in FILES.items())
    return image_task(
        "svhn",
        train,
        val,
        classes=CLASSES,
        train_size=train_size,
        label_noise=label_noise,
        crop=crop,
        flip=flip,
        cutout=cutout,
    )


def _read(path: Path, md5: str, published_examples: int) -> tuple[Tensor, Tensor]:
    from scipy.io import loadmat

    if not path.is_file():
        raise missing("svhn", path, tuple(FILES), "MATLAB files of 32x32 digits")
    content = read_bytes(path)
    try:
        held: dict[str, Any] = loadmat(io.BytesIO(content), variable_names=("X", "y"))  # type: ignore[arg-type]  # it takes a file as well
    # SciPy's reader of a damaged file fails at whatever its bytes lead to, with all kinds of errors.
    except Exception as error:
        raise damaged(path, f"cannot be read as a MATLAB file ({in_a_line(error)})") from None
    images, labels = held.get("X"), held.get("y")
    if images is None or images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (32, 32, 3):
        raise damaged(path, "holds no 'X' of 32 x 32 x 3 bytes for each example")
    if labels is None or labels.shape != (images.shape[3], 1) or not len(labels):
        raise damaged(path, f"holds no 'y' with a label for each of its {images.shape[3]} images")
    if labels.dtype.kind not in "iu" or labels.min() < 1 or labels.max() > CLASSES:
        raise damaged(path, "has labels that are no integers from 1 to 10")
    if len(labels) == published_examples:
        check_published(path, content, md5)
    digits = labels[:, 0].astype(np.int64) % CLASSES  # the digit 0 is written as 10
    return torch.from_numpy(np.ascontiguousarray(images.transpose(3, 2, 0, 1))), torch.from_numpy(digits)
