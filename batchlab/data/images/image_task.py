"""Builds a task from stored images: selection, standardisation, label noise, augmentation."""

import numpy as np
import torch
from torch import Tensor

from batchlab import BadRequest, Task
from batchlab.data.images.augment import augmentation
from batchlab.data.label_noise import with_wrong_labels

ORDER_SEED = 20251101  # of the examples that a smaller training set keeps: does not depend on a run's seed
NOISE_SEED = 20251102


def image_task(
    name: str,
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    *,
    classes: int,
    train_size: int | None,
    label_noise: float,
    crop: int,
    flip: bool,
    cutout: int,
) -> Task:
    """Classification of images (examples, channels, height, width) uint8 with labels (examples,) int64.

    Each channel is standardised to mean 0 and standard deviation 1 over the whole training set, so that validation is
    the same for every `train_size`. `name` is the data group's, for messages.
    """
    augment = augmentation(crop=crop, flip=flip, cutout=cutout)
    order = chosen(name, len(train[1]), train_size)
    means, deviations = _statistics(train[0])
    right = train[1][order]
    noisy, corrupted = with_wrong_labels(right, label_noise, classes=classes, seed=NOISE_SEED)
    inputs = _standardised(train[0][order], means, deviations)
    return Task.classification(
        train=(inputs, noisy),
        val=(_standardised(val[0], means, deviations), val[1]),
        corrupted=corrupted,
        uncorrupted=(inputs, right),
        augment=augment,
        model_args={"num_classes": classes, "input_shape": tuple(inputs.shape[1:])},
    )


def chosen(name: str, n: int, train_size: int | None) -> Tensor:
    """Which of `n` training examples are kept, as indices (train_size,); all if it is None.

    In a fixed random order, because files may be sorted by class; a smaller choice is the beginning of a larger one.
    """
    count = n if train_size is None else train_size
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= n:
        raise BadRequest(
            f"data.train_size={train_size} is invalid: {name} has {n} training examples here, "
            f"use data.train_size=1 to data.train_size={n}, or null for all"
        )
    # NumPy's legacy generator: the only one whose numbers are guaranteed not to change (NEP 19).
    return torch.from_numpy(np.random.RandomState(ORDER_SEED).permutation(n)[:count])


def _statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, (1, channels, 1, 1): from counts of the 256 values, so exact."""
    values = torch.arange(256, dtype=torch.float64)
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)])
    shares = counts.double() / counts.sum(1, keepdim=True)
    means = shares @ values
    deviations = ((shares @ values.square()) - means.square()).clamp_min(0).sqrt()
    deviations[deviations == 0] = 1.0  # a channel of one colour
    return means.float().view(1, -1, 1, 1), deviations.float().view(1, -1, 1, 1)


def _standardised(images: Tensor, means: Tensor, deviations: Tensor) -> Tensor:
    return images.float().sub_(means).div_(deviations)
