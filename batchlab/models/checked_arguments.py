"""Checks the options of a model and the data it is used with."""

from collections.abc import Sequence
from typing import Any

from batchlab import BadRequest


def check_count(name: str, value: Any, least: int = 1) -> None:
    """BadRequest if `model.<name>` is not an integer of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise BadRequest(f"model.{name}={value} is invalid: it must be an integer of at least {least}")


def check_dropout(dropout: Any) -> None:
    """BadRequest if `model.dropout` is not a share of units."""
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise BadRequest(f"model.dropout={dropout} is invalid: it must be from 0 to below 1, such as model.dropout=0.1")


def image(model: str, input_shape: Sequence[int] | None, least: int = 1) -> tuple[int, int, int]:
    """Channels, rows and columns of the examples; BadRequest if they are not images of at least `least` pixels."""
    if input_shape is None:
        raise BadRequest(
            f"model={model} needs images, but this data does not give the shape of its examples: use data=digits, or "
            "provide input_shape in the Task's model_args"
        )
    if len(input_shape) != 3 or min(input_shape[1:]) < least:
        raise BadRequest(
            f"model={model} needs images (channels, height, width) of at least {least}x{least}, but the data's "
            f"examples have shape {tuple(input_shape)}: use model=mlp"
        )
    channels, rows, columns = input_shape
    return channels, rows, columns


def outputs(model: str, num_classes: int | None, num_outputs: Any) -> int:
    """The number of outputs per example: a logit for each class, or an output for each target."""
    wanted = num_classes if num_outputs is None else num_outputs
    if wanted is None or isinstance(wanted, Sequence):
        found = "neither classes nor number of targets" if wanted is None else f"targets of shape {tuple(wanted)}"
        raise BadRequest(
            f"model={model} gives one row of outputs per example, but this data has {found}: use data with "
            "classes, such as data=digits, or your own model, model._target_=my_file.name"
        )
    check_count("num_classes" if num_outputs is None else "num_outputs", wanted)
    return int(wanted)
