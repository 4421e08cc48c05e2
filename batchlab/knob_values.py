"""One value against its knob: the type and the bounds it must have, and what is said where it has not."""

import functools
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

from batchlab.errors import BadRequest, did_you_mean


@dataclass(frozen=True)
class Target:
    """A value of a validation metric that counts as having learnt the task."""

    metric: str  # val/loss or val/<metric>
    value: float


@dataclass(frozen=True)
class Published:
    """A figure that others published of the same experiment."""

    what: str  # it is, in words
    value: tuple[float, float]  # from and to; one number twice
    source: str  # the paper and its table
    spread: float | None = None  # of one number, as published
    batch_size: int | None = None  # at which it was found; None: of all of them
    ours: str | None = None  # what of a study stands beside it: `batchlab.report.published` says what there is
    where: Mapping[str, Any] = field(default_factory=dict)  # dotted knobs of the runs that do


def check_value(knob_field: Field[Any], value: Any) -> Any:
    """`value` as the knob's type, or `BadRequest` with the knob, the value and what is allowed."""
    name, kind = knob_field.name, _kind(knob_field)
    if value is None and "None" in kind:
        return None
    if knob_field.metadata.get("group"):
        return _group(name, value)
    if name == "instruments":
        return {key: _group(f"instruments.{key}", entry) for key, entry in _mapping(name, value).items()}
    if name == "target":
        return _target(value)
    if name == "published":
        return published(value)
    if kind.startswith("tuple"):
        return _listed(knob_field, value)
    if not _fits(value, kind, knob_field.metadata):
        raise _refused(name, value, knob_field)
    return float(value) if kind.startswith("float") else value


def _listed(knob_field: Field[Any], value: Any) -> tuple[str, ...]:
    choices = knob_field.metadata.get("choices")
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item for item in value):
        raise BadRequest(
            f"{knob_field.name}={shown(value)} is not a list of {knob_field.metadata['of']}; "
            f"write {knob_field.name}=[{knob_field.metadata['such_as']}]"
        )
    for item in value:
        if choices and item not in choices:
            near = did_you_mean(item, choices)
            raise BadRequest(f"{knob_field.name} holds {item!r}, and takes {', '.join(choices)}{near}")
    return tuple(value)


def _fits(value: Any, kind: str, bounds: Mapping[str, Any]) -> bool:
    if kind.startswith("str"):
        return _is_plain(value) and value in bounds.get("choices", (value,))
    if kind == "bool":
        return isinstance(value, bool)
    if not is_finite(value) or (kind.startswith("int") and not isinstance(value, int)):
        return False
    within: bool = bounds.get("at_least", value) <= value <= bounds.get("at_most", value)
    return within and value > float(bounds.get("above", -math.inf))


def _is_plain(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != "" and value.isprintable()


@functools.cache
def _kind(knob_field: Field[Any]) -> str:
    """The knob's type as it is written: `int`, `float | None`."""
    return knob_field.type.__name__ if isinstance(knob_field.type, type) else str(knob_field.type)


def is_finite(value: Any) -> bool:
    """Whether `value` is a number that a float can hold: no truth value, nan or infinity, and not 10**400."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def allowed(knob_field: Field[Any]) -> str:
    """What a knob takes, in words: `an integer of at least 1`, `one of none, linear, ...`."""
    bounds, kind = knob_field.metadata, _kind(knob_field)
    if "choices" in bounds:
        return "one of " + ", ".join(bounds["choices"])
    words = {"int": "an integer", "float": "a number", "str": "a text", "bool": "true or false"}
    text = next((word for start, word in words.items() if kind.startswith(start)), "a mapping")
    for bound, phrase in (("at_least", "of at least"), ("above", "above"), ("at_most", "and at most")):
        text += f" {phrase} {str(bounds[bound]).removesuffix('.0')}" if bound in bounds else ""
    return text + (", or null" if "None" in kind else "")


def _refused(name: str, value: Any, knob_field: Field[Any]) -> BadRequest:
    typed = value if _is_plain(value) and _kind(knob_field).startswith("str") else shown(value)
    near = did_you_mean(str(value), knob_field.metadata.get("choices", ()))
    return BadRequest(f"{name}={typed} cannot be: {name} is {allowed(knob_field)}{near}")


def shown(value: Any) -> str:
    """`value` on one line as it would be typed; a text in quotes, so that '8' is seen not to be 8."""
    return json.dumps(value) if value is None or isinstance(value, bool) else repr(value)


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadRequest(f"{name}={shown(value)} is not a config group; `batchlab config` lists the groups")
    return value


def _group(name: str, value: Any) -> dict[str, Any]:
    target = _mapping(name, value).get("_target_")
    if not isinstance(target, str) or "." not in target or not all(p.isidentifier() for p in target.split(".")):
        raise BadRequest(f"{name}._target_={shown(target)} names nothing: write it as module.name, such as my_net.Net")
    return {str(key): entry for key, entry in value.items()}


def published(value: Any) -> tuple[Published, ...]:
    """Published figures from plain values; BadRequest where one is none."""
    if not isinstance(value, list | tuple):
        raise BadRequest(f"published={shown(value)} is not a list of figures: write it in an experiment's file")
    return tuple(_figure(f"published[{position}]", entry) for position, entry in enumerate(value))


def _figure(name: str, value: Any) -> Published:
    given = dict(value) if isinstance(value, Mapping) else {}
    known = [f.name for f in fields(Published)]
    if unknown := [key for key in given if key not in known]:
        raise BadRequest(f"unknown key '{name}.{unknown[0]}': a published figure has {', '.join(known)}")
    for key in ("what", "source"):
        if not _is_plain(given.get(key)):
            raise BadRequest(f"{name}.{key}={shown(given.get(key))} cannot be: it is a text, and every figure has one")
    span = given.get("value")
    ends = tuple(span) if isinstance(span, list | tuple) else (span, span)
    if len(ends) != 2 or not all(map(is_finite, ends)) or ends[0] > ends[1]:
        raise BadRequest(f"{name}.value={shown(span)} cannot be: it is a number, or a list of two, the smaller first")
    spread, size, ours = (given.get(key) for key in ("spread", "batch_size", "ours"))
    if spread is not None and not (is_finite(spread) and spread >= 0):
        raise BadRequest(f"{name}.spread={shown(spread)} cannot be: it is a number of at least 0, or null")
    if size is not None and not (is_finite(size) and isinstance(size, int) and size >= 1):
        raise BadRequest(f"{name}.batch_size={shown(size)} cannot be: it is an integer of at least 1, or null")
    if ours is not None and not _is_plain(ours):
        raise BadRequest(
            f"{name}.ours={shown(ours)} cannot be: it names what stands beside it, such as best.val/accuracy"
        )
    where = given.get("where") or {}
    if not isinstance(where, Mapping):
        raise BadRequest(
            f"{name}.where={shown(where)} cannot be: it holds knobs of the runs, such as {{precision: bf16}}"
        )
    return Published(given["what"], (float(ends[0]), float(ends[1])), given["source"], spread, size, ours, dict(where))


def _target(value: Any) -> Target | None:
    if not isinstance(value, Mapping):
        metric = f"target.metric={value} " if _is_plain(value) and value.startswith("val/") else ""
        wanted = f"{value}" if is_finite(value) else "0.15"
        raise BadRequest(
            f"target={shown(value)} cannot be: a target has a metric and a value; write {metric}target.value={wanted}"
        )
    given = dict(value)
    wanted = given.pop("value", None)
    metric = given.pop("metric", None)
    if given:
        raise BadRequest(f"unknown key 'target.{next(iter(given))}': a target has metric and value")
    if wanted is not None and not is_finite(wanted):
        raise BadRequest(f"target.value={shown(wanted)} cannot be: it is a number, or null for no target")
    named = _is_plain(metric) and metric.startswith("val/") and metric != "val/"
    if not named and (metric, wanted) != (None, None):
        raise BadRequest(f"target.metric={shown(metric)} cannot be: it is val/loss or another val/<metric>")
    return None if wanted is None else Target(metric=metric, value=float(wanted))
