"""A user's own images: a folder for each class. Read when they are needed, so they need not fit in memory."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from batchlab import BadRequest, Task
from batchlab.data.images.augment import augmentation
from batchlab.data.images.image_task import NOISE_SEED, chosen
from batchlab.data.images.on_disk import in_a_line
from batchlab.data.label_noise import with_wrong_labels

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
VAL_FOLDERS = ("val", "valid", "validation", "test")
VAL_SHARE = 0.2  # if there is no folder for validation
SPLIT_SEED = 20251106
# ImageNet's means and deviations, by channels: pretrained models use them, and they suit other photographs.
STANDARDS = {1: ([0.449], [0.226]), 3: ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])}

Sample = tuple[Path, int]  # an image and its class


def load(
    path: str,
    image_size: int | None = None,
    channels: int = 3,
    val_share: float | None = None,
    train_size: int | None = None,
    label_noise: float = 0.0,
    crop: int = 0,
    flip: bool = False,
    cutout: int = 0,
) -> Task:
    """Images (examples, channels, height, width), standardised as for ImageNet, and the number of their folder.

    `path` holds `train/<class>/*.png` and `val/<class>/*.png` (or valid, validation, test), or only `<class>/*.png`, of
    which `val_share` (default: a fifth) is held out, the same for every seed. Classes are numbered by name.
    `image_size` resizes every image to this many pixels a side, and crops the longer side at both ends; None is for
    images that are all of the same size.
    """
    _check(path, image_size, channels)
    augment = augmentation(crop=crop, flip=flip, cutout=cutout)
    train, val, classes = _split(Path(path).expanduser(), val_share)
    train = [train[i] for i in chosen("image_folder", len(train), train_size).tolist()]
    right = torch.tensor([label for _, label in train])
    if label_noise and len(classes) < 2:
        raise BadRequest(f"data.label_noise={label_noise} is invalid: {path} has only one class")
    noisy, corrupted = with_wrong_labels(right, label_noise, classes=max(2, len(classes)), seed=NOISE_SEED)
    size = (image_size, image_size) if image_size else _size_of(train[0][0])
    files = [file for file, _ in train]
    return Task.classification(
        train=Images(files, noisy.tolist(), size, channels, fitted=image_size is not None),
        val=Images([f for f, _ in val], [label for _, label in val], size, channels, fitted=image_size is not None),
        corrupted=corrupted,
        augment=augment,
        model_args={"num_classes": len(classes), "input_shape": (channels, *size)},
    )


class Images(Dataset[tuple[Tensor, int]]):
    """Images read and decoded one by one: (channels, *`size`) float32, and a label.

    `fitted` resizes them to `size`, height and width; otherwise an image of another size is refused.
    """

    def __init__(
        self, files: Sequence[Path], labels: Sequence[int], size: tuple[int, int], channels: int, *, fitted: bool
    ) -> None:
        self.files, self.labels = files, labels
        self.size, self.channels, self.fitted = size, channels, fitted
        means, deviations = (torch.tensor(values).view(-1, 1, 1) for values in STANDARDS[channels])
        self.means, self.deviations = means, deviations

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image, ImageOps

        path, (height, width) = self.files[index], self.size
        try:
            with Image.open(path) as opened:
                image = opened.convert("L" if self.channels == 1 else "RGB")
        # Pillow's decoders raise all kinds of errors for a damaged file.
        except Exception as error:
            raise _unreadable(path, error) from None
        if self.fitted:
            image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
        elif image.size != (width, height):
            raise BadRequest(
                f"{path} is {image.height}x{image.width} but {self.files[0]} is {height}x{width}: add "
                f"data.image_size={min(height, width)} to resize all of them"
            )
        pixels = torch.from_numpy(np.array(image)).view(height, width, self.channels).permute(2, 0, 1)
        # Contiguous first, or the arithmetic would keep channels last and each batch would be copied again.
        scaled = pixels.contiguous().float().div_(255).sub_(self.means).div_(self.deviations)
        return scaled, self.labels[index]


def _check(path: str, image_size: int | None, channels: int) -> None:
    if not isinstance(path, str) or not path:
        raise BadRequest(f"data.path={path} is invalid: give a folder that holds a folder of images for each class")
    whole = isinstance(image_size, int) and not isinstance(image_size, bool) and image_size >= 1
    if image_size is not None and not whole:
        raise BadRequest(
            f"data.image_size={image_size} is invalid: give the pixels of a side, such as data.image_size=64, or null "
            "if all images have the same size"
        )
    if channels not in STANDARDS or isinstance(channels, bool):
        raise BadRequest(f"data.channels={channels} is invalid: use 3 for colour or 1 for grey")


def _split(root: Path, val_share: float | None) -> tuple[list[Sample], list[Sample], list[str]]:
    """Training and validation samples, and the names of the classes."""
    if not root.is_dir():
        raise BadRequest(
            f"data.path={root} is not a folder: give one that holds train/CLASS/*.png and val/CLASS/*.png, or only "
            "CLASS/*.png, with data.path=..."
        )
    home = root / "train" if (root / "train").is_dir() else root
    # Without a folder `train`, a folder called `test` is a class like the others.
    held_out = next((root / name for name in VAL_FOLDERS if home != root and (root / name).is_dir()), None)
    if held_out is None:
        samples, classes = _samples(home)
        return *_divided(root, samples, VAL_SHARE if val_share is None else val_share), classes
    if val_share is not None:
        raise BadRequest(f"data.val_share={val_share} is invalid: validation uses {held_out}; use data.val_share=null")
    train, classes = _samples(home)
    val, val_classes = _samples(held_out)
    if unknown := [name for name in val_classes if name not in classes]:
        raise BadRequest(f"{held_out / unknown[0]} is a class that {home} lacks, so it cannot be learnt")
    return train, [(file, classes.index(val_classes[label])) for file, label in val], classes


def _samples(folder: Path) -> tuple[list[Sample], list[str]]:
    """Every image below each folder in `folder`, in the order of names, which does not depend on the file system."""
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    samples = []
    for label, name in enumerate(classes):
        found = sorted(
            Path(at, file)
            for at, _, files in os.walk(folder / name, followlinks=True)
            for file in files
            if file.lower().endswith(ENDINGS) and not file.startswith(".")
        )
        if not found:
            raise BadRequest(f"{folder / name} holds no images ({', '.join(ENDINGS)}): put some there, or delete it")
        samples += [(file, label) for file in found]
    if not samples:
        raise BadRequest(f"{folder} holds no folders: put the images of each class into a separate folder")
    return samples, classes


def _divided(root: Path, samples: Sequence[Sample], val_share: float) -> tuple[list[Sample], list[Sample]]:
    number = isinstance(val_share, int | float) and not isinstance(val_share, bool)
    held_out = round(val_share * len(samples)) if number and 0 < val_share < 1 else 0
    if not 0 < held_out < len(samples):
        raise BadRequest(
            f"data.val_share={val_share} is invalid: it is the share of the {len(samples)} images of {root} held out "
            "for validation, and both parts need images, such as data.val_share=0.2"
        )
    order = np.random.RandomState(SPLIT_SEED).permutation(len(samples)).tolist()
    return [samples[i] for i in order[held_out:]], [samples[i] for i in order[:held_out]]


def _size_of(path: Path) -> tuple[int, int]:
    """Height and width, from the header of the file."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            return opened.height, opened.width
    except Exception as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> BadRequest:
    return BadRequest(f"{path} cannot be read as an image ({in_a_line(error)}): fix or remove it")
