"""A small convolutional network."""

from torch import Tensor, nn

from batchlab import BadRequest


class CNN(nn.Module):
    """Two 3x3 convolutions of `width` and 2 x `width` channels, each with ReLU and pooling, then a linear layer.

    Maps images (examples, channels, height, width) of at least 4x4 to logits (examples, num_classes).
    """

    def __init__(self, input_shape: tuple[int, ...], num_classes: int, width: int, batch_norm: bool = True) -> None:
        super().__init__()
        if len(input_shape) != 3 or min(input_shape[1:]) < 4:
            raise BadRequest(
                f"model=cnn takes images (channels, height, width) of at least 4x4, and the data's examples are "
                f"{tuple(input_shape)}: use model=mlp"
            )
        if not isinstance(width, int) or isinstance(width, bool) or width < 1:
            raise BadRequest(f"model.width={width} cannot be: it is an integer of at least 1")
        channels, rows, columns = input_shape
        self.layers = nn.Sequential(
            *_block(channels, width, batch_norm),
            *_block(width, 2 * width, batch_norm),
            nn.Flatten(),
            nn.Linear(2 * width * (rows // 4) * (columns // 4), num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


def _block(channels_in: int, channels_out: int, batch_norm: bool) -> list[nn.Module]:
    # BatchNorm subtracts the mean, and a bias with it.
    convolution = nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=not batch_norm)
    normalisation = [nn.BatchNorm2d(channels_out)] if batch_norm else []
    return [convolution, *normalisation, nn.ReLU(), nn.MaxPool2d(2)]
