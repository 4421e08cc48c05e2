"""CIFAR-100: 60,000 colour pictures of 100 classes, 32x32 (Krizhevsky 2009)."""

from batchlab import Task
from batchlab.data.cifar_files import Published, read_sets
from batchlab.data.images.image_task import image_task

PUBLISHED = Published(
    name="cifar100",
    torchvision_name="CIFAR100",
    classes=100,
    python_folder="cifar-100-python",
    train={"train": "16019d7e3df5f24257cddd939b257f8d"},
    val={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    examples={"train": 50_000, "test": 10_000},
    labels="fine_labels",
    binary_folder="cifar-100-binary",
    binary_train=("train.bin",),
    binary_val=("test.bin",),
    label_bytes=2,  # one of 20 coarse classes, then the fine one
)


def load(
    folder: str = "data",
    download: bool = False,
    train_size: int | None = None,
    label_noise: float = 0.0,
    crop: int = 0,
    flip: bool = False,
    cutout: int = 0,
) -> Task:
    """Images (examples, 3, 32, 32), standardised, from `<folder>/cifar-100-python` or its binary form.

    The test set is for validation.
    """
    train, val = read_sets(PUBLISHED, folder, download)
    return image_task(
        PUBLISHED.name,
        train,
        val,
        classes=PUBLISHED.classes,
        train_size=train_size,
        label_noise=label_noise,
        crop=crop,
        flip=flip,
        cutout=cutout,
    )
