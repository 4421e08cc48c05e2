"""A small convolutional network."""

from collections.abc import Sequence

from torch import Tensor, nn

from batchlab import BadRequest
from batchlab.models.checked_arguments import check_count, image, outputs
from batchlab.models.norms import check_norm, norm_layer


class CNN(nn.Module):
    """Two 3x3 convolutions of `width` and 2 x `width` channels, each with ReLU and pooling, then a linear layer.

    `norm` follows each convolution; null is BatchNorm, or none if `batch_norm` is false.

    Maps images (examples, channels, height, width) of at least 4x4 to logits (examples, num_classes).
    """

    def __init__(
        self,
        input_shape: Sequence[int] | None = None,
        num_classes: int | None = None,
        *,
        width: int,
        batch_norm: bool = True,
        norm: str | None = None,
        num_outputs: int | None = None,
    ) -> None:
        super().__init__()
        channels, rows, columns = image("cnn", input_shape, least=4)
        check_count("width", width)
        if norm is None:
            norm = "batch" if batch_norm else "none"
        check_norm(norm)
        if norm in ("batch", "ghost") and not batch_norm:
            raise BadRequest(
                f"model.norm={norm} contradicts model.batch_norm=false: leave out model.batch_norm=false, or "
                "use model.norm=none"
            )
        self.layers = nn.Sequential(
            *_block(channels, width, norm),
            *_block(width, 2 * width, norm),
            nn.Flatten(),
            nn.Linear(2 * width * (rows // 4) * (columns // 4), outputs("cnn", num_classes, num_outputs)),
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


def _block(channels_in: int, channels_out: int, norm: str) -> list[nn.Module]:
    # A norm layer has its own bias for each channel.
    convolution = nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=norm == "none")
    normalisation = [norm_layer(norm, channels_out)] if norm != "none" else []
    return [convolution, *normalisation, nn.ReLU(), nn.MaxPool2d(2)]
