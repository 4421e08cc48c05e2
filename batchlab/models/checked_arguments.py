"""What a model is asked to be, and what it is to learn from: checked, with what to type instead."""

from collections.abc import Sequence
from typing import Any

from batchlab import BadRequest


def check_count(name: str, value: Any, least: int = 1) -> None:
    """BadRequest where `model.<name>` is no integer of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise BadRequest(f"model.{name}={value} cannot be: it is an integer of at least {least}")


def check_dropout(dropout: Any) -> None:
    """BadRequest where `model.dropout` is no share of units."""
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise BadRequest(f"model.dropout={dropout} cannot be: it is from 0 to below 1, such as model.dropout=0.1")


def image(model: str, input_shape: Sequence[int] | None, least: int = 1) -> tuple[int, int, int]:
    """Channels, rows and columns of the examples; BadRequest where they are no images of at least `least` pixels."""
    if input_shape is None:
        raise BadRequest(
            f"model={model} takes images, and this data does not say what its examples are: use data=digits, or offer "
            "input_shape in the Task's model_args"
        )
    if len(input_shape) != 3 or min(input_shape[1:]) < least:
        raise BadRequest(
            f"model={model} takes images (channels, height, width) of at least {least}x{least}, and the data's "
            f"examples are {tuple(input_shape)}: use model=mlp"
        )
    channels, rows, columns = input_shape
    return channels, rows, columns


def outputs(model: str, num_classes: int | None, num_outputs: Any) -> int:
    """How many numbers the model gives for an example: a logit for each class, or an output for each target."""
    wanted = num_classes if num_outputs is None else num_outputs
    if wanted is None or isinstance(wanted, Sequence):
        found = "neither classes nor numbers" if wanted is None else f"targets of shape {tuple(wanted)}"
        raise BadRequest(
            f"model={model} gives a row of outputs for each example, and this data asks for {found}: use data with "
            "classes, such as data=digits, or a model of your own, model._target_=my_file.name"
        )
    check_count("num_classes" if num_outputs is None else "num_outputs", wanted)
    return int(wanted)
