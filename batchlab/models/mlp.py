"""Fully connected layers."""

import math

from torch import Tensor, nn

from batchlab import BadRequest

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "tanh": nn.Tanh}


class MLP(nn.Module):
    """`depth` hidden layers of `width` units over the flattened input; no hidden layer is a linear model.

    A smooth `activation` (gelu, tanh) keeps two runs that differ by rounding together: at the kink of a ReLU a unit
    switches, and the loss parts by 1e-4 within 20 epochs of the digits.

    Maps (examples, *input_shape) to logits (examples, num_classes).
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        width: int,
        depth: int,
        activation: str = "gelu",
        batch_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        for name, value, least in (("width", width, 1), ("depth", depth, 0)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise BadRequest(f"model.{name}={value} cannot be: it is an integer of at least {least}")
        if activation not in ACTIVATIONS:
            raise BadRequest(f"model.activation={activation} is unknown: use one of {', '.join(ACTIVATIONS)}")
        if not 0 <= dropout < 1:
            raise BadRequest(f"model.dropout={dropout} cannot be: it is from 0 to below 1, such as model.dropout=0.1")
        layers: list[nn.Module] = [nn.Flatten()]
        size = math.prod(input_shape)
        for _ in range(depth):
            # BatchNorm subtracts the mean, and a bias with it.
            layers.append(nn.Linear(size, width, bias=not batch_norm))
            layers += [nn.BatchNorm1d(width)] if batch_norm else []
            layers.append(ACTIVATIONS[activation]())
            layers += [nn.Dropout(dropout)] if dropout else []
            size = width
        self.layers = nn.Sequential(*layers, nn.Linear(size, num_classes))

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.layers(inputs)
        return logits
