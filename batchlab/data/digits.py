"""1,797 real images of handwritten digits, 8x8, that ship inside scikit-learn (UCI, Alpaydin and Kaynak 1998)."""

import numpy as np
import torch

from batchlab import BadRequest, Task
from batchlab.data.label_noise import with_wrong_labels

TRAIN_EXAMPLES = 1437  # the other 360 are for validation
SPLIT_SEED = 20250101  # of the split alone: a run's seed changes the data order, never the split
NOISE_SEED = 20250102


def load(train_size: int | None = None, label_noise: float = 0.0) -> Task:
    """Images (examples, 1, 8, 8) in [0, 1] and their digits (examples,), with a fixed split.

    `train_size` keeps the first training examples, in a fixed order; `label_noise` is the share of training labels
    that are replaced by wrong ones. Validation does not change.
    """
    from sklearn.datasets import load_digits

    count = TRAIN_EXAMPLES if train_size is None else train_size
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= TRAIN_EXAMPLES:
        raise BadRequest(
            f"data.train_size={train_size} is invalid: the digits have {TRAIN_EXAMPLES} training examples, "
            f"use data.train_size=1 to data.train_size={TRAIN_EXAMPLES}, or null for all"
        )
    digits = load_digits()
    # NumPy's legacy generator: the only one whose numbers are guaranteed not to change (NEP 19).
    order = torch.from_numpy(np.random.RandomState(SPLIT_SEED).permutation(len(digits.target)))
    images = torch.from_numpy(digits.images).float().div(16.0).unsqueeze(1)[order]
    labels = torch.from_numpy(digits.target).long()[order]
    inputs, right = images[:count].clone(), labels[:count].clone()
    noisy, corrupted = with_wrong_labels(right, label_noise, classes=10, seed=NOISE_SEED)
    return Task.classification(
        train=(inputs, noisy),
        val=(images[TRAIN_EXAMPLES:].clone(), labels[TRAIN_EXAMPLES:].clone()),
        corrupted=corrupted,
        uncorrupted=(inputs, right),
    )
