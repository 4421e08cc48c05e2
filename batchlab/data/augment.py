"""Random changes of training images that keep what they show: crop, flip, cutout."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from batchlab import BadRequest, uniform


def augmentation(*, crop: int = 0, flip: bool = False, cutout: int = 0) -> Callable[[Any, Tensor], Any] | None:
    """What a task changes its batches by, in this order; None where nothing was asked for.

    `crop`: pads each side by so many pixels of 0, the mean of standardised images, and cuts the image's size out of
    it at a random place (4 for 32x32: He et al. 2016, arXiv:1512.03385). `flip`: left to right, every other image.
    `cutout`: sets a square of so many pixels a side to 0; its centre lies anywhere, so it may reach over the edge
    (16 for CIFAR-10, 8 for CIFAR-100, 20 for SVHN: DeVries and Taylor 2017, arXiv:1708.04552).

    A batch is a tuple of images (examples, channels, height, width) and what else belongs to them. What is done to an
    image depends on its own number of `draws` alone, and is the same on every device.
    """
    for name, value in (("crop", crop), ("cutout", cutout)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise BadRequest(f"data.{name}={value} cannot be: it is a number of pixels, such as data.{name}=4; 0: none")
    if not isinstance(flip, bool):
        raise BadRequest(f"data.flip={flip} cannot be: it is true or false")
    if not (crop or flip or cutout):
        return None

    def augment(batch: Any, draws: Tensor) -> Any:
        images, *rest = batch
        if crop:
            images = _cropped(images, draws, crop)
        if flip:
            turned = uniform(draws, "flip") < 0.5
            images = torch.where(turned.view(-1, 1, 1, 1), images.flip(3), images)
        if cutout:
            images = _cut_out(images, draws, cutout)
        return (images, *rest)

    return augment


def _cropped(images: Tensor, draws: Tensor, padding: int) -> Tensor:
    rows, columns = images.shape[2:]
    padded = F.pad(images, (padding, padding, padding, padding))
    # (examples, channels, places down, places across, rows, columns): views of `padded`, no copies
    windows = padded.unfold(2, rows, 1).unfold(3, columns, 1)
    down, across = (uniform(draws, "crop", (2,)) * (2 * padding + 1)).long().unbind(1)
    return windows[torch.arange(len(images), device=images.device), :, down, across]


def _cut_out(images: Tensor, draws: Tensor, size: int) -> Tensor:
    hidden = []
    for place, pixels in zip(uniform(draws, "cutout", (2,)).unbind(1), images.shape[2:], strict=True):
        first = (place * pixels).long().unsqueeze(1) - size // 2
        pixel = torch.arange(pixels, device=images.device)
        hidden.append((pixel >= first) & (pixel < first + size))  # (examples, pixels)
    return images.masked_fill(hidden[0][:, None, :, None] & hidden[1][:, None, None, :], 0.0)
