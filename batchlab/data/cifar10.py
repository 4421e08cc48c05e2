"""CIFAR-10: 60,000 colour pictures of 10 classes, 32x32 (Krizhevsky 2009)."""

from batchlab import Task
from batchlab.data.cifar_files import Published, read_sets
from batchlab.data.images.image_task import image_task

PUBLISHED = Published(
    name="cifar10",
    torchvision_name="CIFAR10",
    classes=10,
    python_folder="cifar-10-batches-py",
    train={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    val={"test_batch": "40351d587109b95175f43aff81a1287e"},
    examples=dict.fromkeys((*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"), 10_000),
    labels="labels",
    binary_folder="cifar-10-batches-bin",
    binary_train=tuple(f"data_batch_{n}.bin" for n in range(1, 6)),
    binary_val=("test_batch.bin",),
    label_bytes=1,
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
    """Images (examples, 3, 32, 32), standardised, from `<folder>/cifar-10-batches-py` or its binary form.

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
