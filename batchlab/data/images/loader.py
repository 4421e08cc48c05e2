"""The `load` function of the published image sets, which differ in how their files are read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from batchlab import BadRequest, Task
from batchlab.data.images.image_task import image_task
from batchlab.data.images.on_disk import Images, fetch_if_requested, located


class Files(Protocol):
    """The layout and format of a published set's files; `known` is torchvision's class for the set."""

    def lacking(self, name: str, known: Any, folder: Path) -> BadRequest | None:
        """The error if files of data set `name` are missing below `folder`, else None."""

    def download(self, known: Any, folder: Path) -> object:
        """Downloads them."""

    def read(self, known: Any, folder: Path, classes: int) -> tuple[Images, Images]:
        """Training and test set; BadRequest if a file is wrong."""


def loader(name: str, torchvision_name: str, files: Files, classes: int = 10) -> Callable[..., Task]:
    """Makes the function `load` of the data group `name`."""

    def load(
        folder: str = "data",
        download: bool = False,
        train_size: int | None = None,
        label_noise: float = 0.0,
        crop: int = 0,
        flip: bool = False,
        cutout: int = 0,
    ) -> Task:
        """Images (examples, channels, height, width), standardised, from torchvision's files below `folder`.

        The test set is used for validation. An idx or MATLAB file with as many examples as the published one must be
        identical to it. A pickle is opened only if its checksum is the published one, because it could run any program:
        your own sets are accepted in the formats that cannot run code, idx, MATLAB and CIFAR's binary format.
        """
        from torchvision import datasets  # 0.3 s in a worker; 4 s in a new process

        known, home = getattr(datasets, torchvision_name), located(folder)
        there = files.lacking(name, known, home) is None
        fetch_if_requested(name, download, there, lambda: files.download(known, home))
        if (lacking := files.lacking(name, known, home)) is not None:
            raise lacking
        train, val = files.read(known, home, classes)
        return image_task(
            name,
            train,
            val,
            classes=classes,
            train_size=train_size,
            label_noise=label_noise,
            crop=crop,
            flip=flip,
            cutout=cutout,
        )

    load.__module__, load.__qualname__ = f"batchlab.data.{name}", "load"  # where `_target_` finds it
    return load
