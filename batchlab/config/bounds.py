"""Checks one value against its option: its type, its bounds, and the message where it does not fit."""

import math
import re
from collections.abc import Mapping
from typing import Any

from batchlab.config.goals import target_of
from batchlab.config.moved_targets import current
from batchlab.config.option_row import Option
from batchlab.config.published import published
from batchlab.config.synonyms import meant_value
from batchlab.config.values import Group, is_finite, is_plain, shown
from batchlab.errors import BadRequest, did_you_mean

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LONG = {
    "s": ("sec", "second", "seconds"),
    "m": ("min", "minute", "minutes"),
    "h": ("hr", "hour", "hours"),
    "d": ("day", "days"),
}


def check_value(option: Option, value: Any) -> Any:
    """`value` as the option's type, or `BadRequest` with the option, the value and what is allowed."""
    name, kind = option.name, option.type
    if value is None and "None" in kind:
        return None
    if option.is_group or (option.may_be_own and isinstance(value, Mapping)):
        return _group(name, value, option.such_as)
    if name == "instruments":
        return current(
            {key: _group(f"instruments.{key}", entry, option.such_as) for key, entry in _mapping(name, value).items()}
        )
    if name == "target":
        return target_of(value)
    if name == "published":
        return published(value)
    if kind.startswith("tuple"):
        return _numbers(option, value) if "float" in kind else _texts(option, value)
    if not _fits(option, value):
        raise _refused(option, value)
    return float(value) if kind.startswith("float") else value


def allowed(option: Option) -> str:
    """What an option takes, as text: `an integer of at least 1`, `one of none, linear, ...`."""
    if option.choices:
        return "one of " + ", ".join(option.choices) + f", or your own by {option.name}._target_" * option.may_be_own
    kinds = {"int": "an integer", "float": "a number", "str": "a text", "bool": "true or false"}
    text = next((kind for start, kind in kinds.items() if option.type.startswith(start)), "a mapping")
    bounds = ((option.at_least, "of at least"), (option.above, "above"), (option.at_most, "and at most"))
    for bound, phrase in bounds:
        text += "" if bound is None else f" {phrase} {str(bound).removesuffix('.0')}"
    return text + (", or null" if "None" in option.type else "")


def _numbers(option: Option, value: Any) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or not all(map(is_finite, value)):
        raise _no_list(option, value)
    return tuple(map(float, value))


def _no_list(option: Option, value: Any) -> BadRequest:
    return BadRequest(
        f"{option.name}={shown(value)} is not a list of {option.items}; write {option.name}=[{option.such_as}]"
    )


def _texts(option: Option, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item for item in value):
        raise _no_list(option, value)
    for item in value:
        if option.choices and item not in option.choices:
            near = did_you_mean(item, option.choices)
            raise BadRequest(f"{option.name} holds {item!r}, but takes only {', '.join(option.choices)}{near}")
    return tuple(value)


def _fits(option: Option, value: Any) -> bool:
    kind = option.type
    if kind.startswith("str"):
        return is_plain(value) and (not option.choices or value in option.choices)
    if kind == "bool":
        return isinstance(value, bool)
    if not is_finite(value) or (kind.startswith("int") and not isinstance(value, int)):
        return False
    least = -math.inf if option.at_least is None else option.at_least
    most = math.inf if option.at_most is None else option.at_most
    return bool(least <= value <= most and (option.above is None or value > option.above))


def _refused(option: Option, value: Any) -> BadRequest:
    typed = value if is_plain(value) and option.type.startswith("str") else shown(value)
    near = meant_value(str(value), option.choices)
    if isinstance(value, list):
        near = f"; several values are written without brackets, {option.name}={','.join(map(str, value))}"
    takes = allowed(option)
    if option.unit:
        takes = takes.removesuffix(", or null") + f", in {option.unit}" + ", or null" * takes.endswith(", or null")
    if isinstance(value, str) and (number := _converted(option, value)) is not None:
        near = f": write {option.name}={number}"
    return BadRequest(f"{option.name}={typed} is invalid: it must be {takes}{near}")


def _converted(option: Option, text: str) -> int | float | None:
    """`10m` as 600 where seconds are wanted, `5%` as 0.05; None where the unit is another one."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(%|[a-z]+)", text.strip().lower())
    if found is None:
        return None
    times = {"%": 0.01} if "fraction" in option.unit else SECONDS if option.unit == "seconds" else {}
    factor = next((factor for unit, factor in times.items() if found[2] in (unit, *LONG.get(unit, ()))), None)
    number = None if factor is None else round(float(found[1]) * factor, 9)
    if number is None or not _fits(option, number):
        return None
    return int(number) if number.is_integer() else number


def _mapping(name: str, value: Any) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise BadRequest(f"{name}={shown(value)} is not a config group; `batchlab config` lists the groups")
    return value


def _group(name: str, value: Any, such_as: str) -> Group:
    target = _mapping(name, value).get("_target_")
    if not isinstance(target, str) or "." not in target or not all(p.isidentifier() for p in target.split(".")):
        raise BadRequest(f"{name}._target_={shown(target)} is invalid: write module.name, such as {such_as}")
    return {str(key): entry for key, entry in value.items()}
