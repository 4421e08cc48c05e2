"""Augmentation of training images: crop, flip, cutout."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from batchlab import BadRequest, uniforms

# Numbers drawn for each image: row and column of the crop, whether it is flipped, the centre of the square.
STREAMS: dict[str, tuple[int, ...]] = {"crop": (2,), "flip": (), "cutout": (2,)}


def augmentation(*, crop: int = 0, flip: bool = False, cutout: int = 0) -> Callable[[Any, Tensor], Any] | None:
    """The `augment` of a task, with the changes in this order; None if none was requested.

    `crop`: pads each side with this many pixels of 0, the mean of standardised images, and crops to the image's size
    at a random place (4 for 32x32: He et al. 2016, arXiv:1512.03385). `flip`: left to right, with probability 1/2.
    `cutout`: sets a square of this many pixels a side to 0; its centre is anywhere, so it may extend beyond the edge
    (16 for CIFAR-10, 8 for CIFAR-100, 20 for SVHN: DeVries and Taylor 2017, arXiv:1708.04552).

    A batch is a tuple of images (examples, channels, height, width) and other tensors. The change of an image depends
    on its own entry of `draws` alone, and is the same on every device.
    """
    for name, value in (("crop", crop), ("cutout", cutout)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise BadRequest(f"data.{name}={value} is invalid: give a number of pixels, such as data.{name}=4, or 0")
    if not isinstance(flip, bool):
        raise BadRequest(f"data.flip={flip} is invalid: use true or false")
    requested = {"crop": crop, "flip": flip, "cutout": cutout}
    drawn = {name: STREAMS[name] for name, value in requested.items() if value}
    if not drawn:
        return None

    def augment(batch: Any, draws: Tensor) -> Any:
        images, *rest = batch
        numbers = uniforms(draws, drawn)
        if crop:
            images = _cropped(images, numbers["crop"], crop)
        if flip:
            images = torch.where((numbers["flip"] < 0.5).view(-1, 1, 1, 1), images.flip(3), images)
        if cutout:
            images = _cut_out(images, numbers["cutout"], cutout)
        return (images, *rest)

    return augment


def _cropped(images: Tensor, numbers: Tensor, padding: int) -> Tensor:
    rows, columns = images.shape[2:]
    padded = F.pad(images, (padding, padding, padding, padding))
    # (examples, channels, places down, places across, rows, columns): views of `padded`, no copies
    windows = padded.unfold(2, rows, 1).unfold(3, columns, 1)
    down, across = (numbers * (2 * padding + 1)).long().unbind(1)
    return windows[torch.arange(len(images), device=images.device), :, down, across]


def _cut_out(images: Tensor, numbers: Tensor, size: int) -> Tensor:
    hidden = []
    for number, pixels in zip(numbers.unbind(1), images.shape[2:], strict=True):
        centre = (number * pixels).long().unsqueeze(1)
        # Each pixel's distance from where the square begins: within it the distance is 0 to size - 1.
        distance = torch.arange(size // 2, pixels + size // 2, device=images.device) - centre
        hidden.append(distance // size == 0)  # (examples, pixels)
    return images.masked_fill(hidden[0][:, None, :, None] & hidden[1][:, None, None, :], 0.0)
