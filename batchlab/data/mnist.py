"""MNIST: 70,000 handwritten digits, 28x28 (LeCun, Bottou, Bengio and Haffner 1998)."""

from batchlab import Task
from batchlab.data.idx_files import CLASSES, read_sets
from batchlab.data.images.image_task import image_task

# Of the files unzipped, as they have been passed on since.
MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
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
    """Images (examples, 1, 28, 28), standardised, from `<folder>/MNIST/raw`; the test set is for validation."""
    train, val = read_sets("mnist", "MNIST", folder, download, MD5)
    return image_task(
        "mnist",
        train,
        val,
        classes=CLASSES,
        train_size=train_size,
        label_noise=label_noise,
        crop=crop,
        flip=flip,
        cutout=cutout,
    )
