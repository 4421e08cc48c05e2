"""Generated images of any size, to try a model without a download: one faint pattern per class, plus noise."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from batchlab import BadRequest, Task
from batchlab.data.images.augment import augmentation

PATTERN_SEED, TRAIN_SEED, VAL_SEED = 20251103, 20251104, 20251105
PATTERN_SIDE = 4  # a pattern has this many random values a side, interpolated to the image's size


def load(
    train_size: int,
    val_size: int,
    image_shape: Sequence[int],
    classes: int,
    signal: float,
    crop: int = 0,
    flip: bool = False,
    cutout: int = 0,
    device: torch.device | str = "cpu",
) -> Task:
    """Images (examples, *image_shape), normal noise of standard deviation 1 plus `signal` times a pattern of the class.

    At `signal=0` they are noise and independent of their labels, as in torchvision's `FakeData`: a model can only
    memorise the examples, and validation stays at chance. They are generated on the device and depend on its kind: CPU
    and CUDA draw different examples of the same patterns.
    """
    for name, value, least in (("train_size", train_size, 1), ("val_size", val_size, 1), ("classes", classes, 2)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise BadRequest(
                f"data.{name}={value} is invalid: give an integer of at least {least}, such as data.{name}={least}"
            )
    shape = tuple(image_shape) if isinstance(image_shape, Sequence) and not isinstance(image_shape, str) else ()
    if len(shape) != 3 or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in shape):
        raise BadRequest(
            f"data.image_shape={image_shape} is invalid: give channels, height and width, data.image_shape=[3,32,32]"
        )
    number = isinstance(signal, int | float) and not isinstance(signal, bool)
    if not number or not math.isfinite(signal) or signal < 0:
        raise BadRequest(f"data.signal={signal} is invalid: use 0 (noise only) or more, such as data.signal=0.3")
    # Drawn on the CPU, so that the patterns are the same on every device.
    coarse = torch.randn(
        classes, shape[0], PATTERN_SIDE, PATTERN_SIDE, generator=torch.Generator().manual_seed(PATTERN_SEED)
    )
    patterns = F.interpolate(coarse, size=shape[1:], mode="bilinear", align_corners=False)
    scale = signal / patterns.flatten(1).std(dim=1, unbiased=False).clamp_min(1e-6)
    patterns = (patterns * scale.view(-1, 1, 1, 1)).to(device)

    def draw(size: int, seed: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator(device).manual_seed(seed)
        labels = torch.randint(classes, (size,), generator=generator, device=device)
        return torch.randn(size, *shape, generator=generator, device=device).add_(patterns[labels]), labels

    return Task.classification(
        train=draw(train_size, TRAIN_SEED),
        val=draw(val_size, VAL_SEED),
        augment=augmentation(crop=crop, flip=flip, cutout=cutout),
        model_args={"num_classes": classes, "input_shape": shape},  # a rare class may have no examples
    )
