"""A learning-rate schedule of the user's own: a function of the progress, checked before it is used."""

import functools
import inspect
import math
from typing import Any

from batchlab import targets
from batchlab.config import RunConfig
from batchlab.errors import BadRequest
from batchlab.science.scaling.schedules import Curve
from batchlab.training.user_errors import message_and_place

GRID = 256  # intervals between the progresses at which it is tried


def own_schedule(config: RunConfig) -> Curve | None:
    """The multiple of the peak learning rate by the progress in [0, 1], as the user's function gives it; None for a
    built-in schedule.

    BadRequest if at a progress of the grid it fails, is not a finite number of at least 0, or differs when it is called
    again: a resumed run would get other learning rates.
    """
    if isinstance(config.schedule, str):
        return None
    target = config.schedule["_target_"]
    keys = {key: value for key, value in config.schedule.items() if key != "_target_"}
    function = targets.resolve_function(target, what="schedule", trust=config.trust)
    _check_signature(function, keys, target)

    def multiple(progress: float) -> float:
        return _number(function(progress, **keys), target, progress)

    first, second = ([_tried(multiple, step / GRID, target) for step in range(GRID + 1)] for _ in range(2))
    for step, (one, other) in enumerate(zip(first, second, strict=True)):
        if one != other:
            raise BadRequest(
                f"schedule._target_={target} returned {one:g} and then {other:g} at progress {step / GRID:g}: it must "
                "depend on the progress and its keys only"
            )
    return multiple


def _check_signature(function: Any, keys: dict[str, Any], target: str) -> None:
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters or parameters[0].kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD):
        raise BadRequest(
            f"schedule._target_={target} takes no progress: its first argument must be the progress in [0, 1]"
        )
    if parameters[0].name in keys and parameters[0].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
        name = parameters[0].name
        raise BadRequest(f"schedule.{name} cannot be set: it is the progress in [0, 1], which each step passes")
    targets.fitting(functools.partial(function, 0.0), keys, {}, what="schedule")


def _tried(multiple: Curve, progress: float, target: str) -> float:
    try:
        return multiple(progress)
    except BadRequest:
        raise
    except Exception as error:
        raise BadRequest(
            f"schedule._target_={target} fails at progress {progress:g}: {message_and_place(error)}"
        ) from error


def _number(value: Any, target: str, progress: float) -> float:
    try:
        number = math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise BadRequest(
            f"schedule._target_={target} returned {value!r:.50} at progress {progress:g}: it must return a finite "
            "number of at least 0, the multiple of the peak learning rate"
        )
    return number
