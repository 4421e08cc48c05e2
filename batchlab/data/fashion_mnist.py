"""Fashion-MNIST: 70,000 pictures of clothes in MNIST's format (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747)."""

from batchlab import Task
from batchlab.data.idx_files import CLASSES, read_sets
from batchlab.data.images.image_task import image_task

# Of the files unzipped.
MD5 = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}


def load(
    folder: str = "data",
    download: bool = False,
    train_size: int | None = None,
    label_noise: float = 0.0,
    crop: int = 0,
    flip: bool = False,
    cutout: int = 0,
) -> Task:
    """Images (examples, 1, 28, 28), standardised, from `<folder>/FashionMNIST/raw`; the test set is for validation."""
    train, val = read_sets("fashion_mnist", "FashionMNIST", folder, download, MD5)
    return image_task(
        "fashion_mnist",
        train,
        val,
        classes=CLASSES,
        train_size=train_size,
        label_noise=label_noise,
        crop=crop,
        flip=flip,
        cutout=cutout,
    )
