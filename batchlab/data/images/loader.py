"""The one `load` of the published image sets, which differ by how their files are read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from batchlab import BadRequest, Task
from batchlab.data.images.image_task import image_task
from batchlab.data.images.on_disk import Images, fetch_if_asked, located


class Files(Protocol):
    """How the files of a published set are laid out and read; `known` is torchvision's class of the set."""

    def lacking(self, name: str, known: Any, folder: Path) -> BadRequest | None:
        """The refusal where files of data set `name` are not below `folder`."""

    def download(self, known: Any, folder: Path) -> object:
        """Fetches them."""

    def read(self, known: Any, folder: Path, classes: int) -> tuple[Images, Images]:
        """Training and test set; BadRequest where a file is not what it should be."""


def loader(name: str, torchvision_name: str, files: Files, classes: int = 10) -> Callable[..., Task]:
    """The function `load` of the data group `name`."""

    def load(
        folder: str = "data",
        download: bool = False,
        train_size: int | None = None,
        label_noise: float = 0.0,
        crop: int = 0,
        flip: bool = False,
        cutout: int = 0,
    ) -> Task:
        """Images (examples, channels, height, width), standardised, from files below `folder`, as torchvision has them.

        The test set is for validation. A file of as many examples as the published one is taken byte for byte only, and
        a pickle is opened only if its checksum is the published one's, since it could run any program. Other sets of
        your own are taken as they are, in the formats that run none: idx, MATLAB and CIFAR's binary form.
        """
        from torchvision import datasets  # 0.3 s in a worker; 4 s in a process that begins with it

        known, home = getattr(datasets, torchvision_name), located(folder)
        there = files.lacking(name, known, home) is None
        fetch_if_asked(name, download, there, lambda: files.download(known, home))
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

    load.__module__ = f"batchlab.data.{name}"  # where `_target_` finds it
    return load
