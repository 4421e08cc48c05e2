"""Fully connected layers."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from batchlab import BadRequest
from batchlab.models.checked_arguments import check_count, check_dropout, outputs

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "tanh": nn.Tanh}


class MLP(nn.Module):
    """`depth` hidden layers of `width` units over the flattened input; no hidden layer is a linear model.

    With a smooth `activation` (gelu, tanh) two runs that differ by rounding stay close: at the kink of a ReLU a unit
    switches, and the losses differ by 1e-4 within 20 epochs of the digits.

    Maps (examples, *input_shape) to logits (examples, num_classes), or to (examples, num_outputs) for a regression.
    """

    def __init__(
        self,
        input_shape: Sequence[int] | None = None,
        num_classes: int | None = None,
        *,
        width: int,
        depth: int,
        activation: str = "gelu",
        batch_norm: bool = False,
        dropout: float = 0.0,
        num_outputs: int | None = None,
    ) -> None:
        super().__init__()
        if input_shape is None:
            raise BadRequest(
                "model=mlp needs examples of a fixed shape, but this data does not give it: use model=gpt for text, or "
                "provide input_shape in the Task's model_args"
            )
        check_count("width", width)
        check_count("depth", depth, 0)
        if activation not in ACTIVATIONS:
            raise BadRequest(f"model.activation={activation} is unknown: use one of {', '.join(ACTIVATIONS)}")
        check_dropout(dropout)
        layers: list[nn.Module] = [nn.Flatten()]
        size = math.prod(input_shape)
        for _ in range(depth):
            # BatchNorm subtracts the mean, which cancels a bias.
            layers.append(nn.Linear(size, width, bias=not batch_norm))
            layers += [nn.BatchNorm1d(width)] if batch_norm else []
            layers.append(ACTIVATIONS[activation]())
            layers += [nn.Dropout(dropout)] if dropout else []
            size = width
        self.layers = nn.Sequential(*layers, nn.Linear(size, outputs("mlp", num_classes, num_outputs)))

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.layers(inputs)
        return logits
