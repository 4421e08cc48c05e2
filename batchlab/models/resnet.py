"""Residual networks for small images."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from batchlab import BadRequest
from batchlab.models.checked_arguments import check_count, image, outputs
from batchlab.models.norms import check_norm, norm_layer


class ResNet(nn.Module):
    """The CIFAR variant of He et al. 2016 (arXiv:1512.03385, section 4.2): 6n + 2 layers with weights.

    A 3x3 convolution of `width` channels, then three stages of n blocks of width, 2 and 4 x `width` channels, the
    image halved before the second and third, the mean over pixels and a linear layer. Shortcuts have no weights: added
    channels are 0 (option A). With `norm` none each branch has a factor that starts at 0 (SkipInit, De and Smith 2020,
    arXiv:2002.10444), or deep networks would not train.

    Maps images (examples, channels, height, width) of at least 4x4 to logits (examples, num_classes).
    """

    def __init__(
        self,
        input_shape: Sequence[int] | None = None,
        num_classes: int | None = None,
        *,
        depth: int,
        width: int = 16,
        norm: str = "batch",
        num_outputs: int | None = None,
    ) -> None:
        super().__init__()
        check_count("depth", depth, 8)
        if depth % 6 != 2:
            lower = depth - (depth - 2) % 6
            raise BadRequest(
                f"model.depth={depth} is invalid: it must be 6n + 2, so model.depth={lower} or model.depth={lower + 6}"
            )
        check_count("width", width)
        check_norm(norm)
        channels, _, _ = image(f"resnet{depth}", input_shape, least=4)
        blocks, size = [], width
        for stage in range(3):
            for block in range((depth - 2) // 6):
                halves = stage > 0 and block == 0
                grown = 2 * size if halves else size
                blocks.append(Block(size, grown, stride=2 if halves else 1, norm=norm))
                size = grown
        self.convolution = convolution(channels, width, norm=norm)
        self.norm = norm_layer(norm, width)
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(size, outputs(f"resnet{depth}", num_classes, num_outputs))

    def forward(self, images: Tensor) -> Tensor:
        seen = self.blocks(F.relu(self.norm(self.convolution(images))))
        # Not AdaptiveAvgPool2d: it has no deterministic backward pass on CUDA.
        logits: Tensor = self.head(seen.mean(dim=(2, 3)))
        return logits


class Block(nn.Module):
    """Two 3x3 convolutions, added to the input."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int, norm: str) -> None:
        super().__init__()
        self.stride = stride
        self.added = channels_out - channels_in
        self.convolution_1 = convolution(channels_in, channels_out, stride=stride, norm=norm)
        self.norm_1 = norm_layer(norm, channels_out)
        self.convolution_2 = convolution(channels_out, channels_out, norm=norm)
        self.norm_2 = norm_layer(norm, channels_out)
        self.factor = nn.Parameter(torch.zeros(())) if norm == "none" else None

    def forward(self, x: Tensor) -> Tensor:
        branch = F.relu(self.norm_1(self.convolution_1(x)))
        branch = self.norm_2(self.convolution_2(branch))
        if self.factor is not None:
            branch = self.factor * branch
        if self.added:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added))
        return F.relu(x + branch)


def convolution(channels_in: int, channels_out: int, *, stride: int = 1, norm: str) -> nn.Conv2d:
    """3x3, with He's initial weights (He et al. 2015, arXiv:1502.01852); with a bias only if there is no norm."""
    made = nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1, bias=norm == "none")
    nn.init.kaiming_normal_(made.weight, mode="fan_out", nonlinearity="relu")
    if made.bias is not None:
        nn.init.zeros_(made.bias)
    return made
