"""Merges plain values into a composition without OmegaConf: microseconds per point instead of ten milliseconds.

Only the simple case is done here: a value at a known key, where no value depends on another.
For everything else the functions return None, and Hydra does it.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Override, OverrideType, ValueType
from omegaconf import AnyNode, DictConfig, ListConfig, OmegaConf

from batchlab.config.values import leaves

_KEY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_NUMBER = re.compile(r"([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)=(-?(?:0|[1-9][0-9]*)(\.[0-9]+)?)")
_MISSING = "???"


@dataclass(frozen=True)
class PlainConfig:
    """A composition as plain values: no interpolation in it, no schema."""

    values: dict[str, object]
    missing: frozenset[str]  # dotted keys that still need a value


@dataclass(frozen=True)
class PlainValue:
    """An override that sets one value."""

    parents: tuple[str, ...]
    key: str
    value: Any
    adds: bool  # with ++: also adds a new key


def plain_config(composed: DictConfig) -> PlainConfig | None:
    """`composed` as plain values; None where a value depends on another or has a declared type."""
    if not all(_is_untyped(node) for node in _nodes(composed)):
        return None
    values: Any = OmegaConf.to_container(composed, resolve=False)
    if any(isinstance(value, str) and "${" in value for _, value in leaves(values)):
        return None
    return PlainConfig(values, frozenset(key for key, value in leaves(values) if value == _MISSING))


def plain_value(override: Override) -> PlainValue | None:
    """`override` as one plain value; None for any other override."""
    if override.type not in (OverrideType.CHANGE, OverrideType.FORCE_ADD) or override.package is not None:
        return None
    if override.value_type is not ValueType.ELEMENT or not _KEY.fullmatch(override.key_or_group):
        return None
    value: Any = override.value()
    if not all(_is_plain(item) for item in (value if isinstance(value, list) else [value])):
        return None
    *parents, key = override.key_or_group.split(".")
    return PlainValue(tuple(parents), key, value, adds=override.type is OverrideType.FORCE_ADD)


def merged(base: PlainConfig, changes: Iterable[PlainValue]) -> dict[str, object] | None:
    """`base` with `changes` merged into it in their order; None where only Hydra can do that.

    The result shares all unchanged values with `base`.
    """
    result = dict(base.values)
    own: dict[tuple[str, ...], dict[str, object]] = {}  # the mappings that were copied from `base`
    given = set()
    for change in changes:
        into = result
        for depth, parent in enumerate(change.parents, 1):
            path = change.parents[:depth]
            if path not in own:
                inner = into.get(parent)
                if not isinstance(inner, dict):
                    return None
                own[path] = into[parent] = dict(inner)
            into = own[path]
        if isinstance(into.get(change.key), dict) or (change.key not in into and not change.adds):
            return None
        into[change.key] = change.value
        given.add(".".join((*change.parents, change.key)))
    return result if base.missing <= given else None


def parsed_number(line: str) -> Override | None:
    """`line` as Hydra's parser reads it, if it is key=number: a grid has thousands of them, and the parser is slow.

    None for anything else.
    """
    found = _NUMBER.fullmatch(line)
    if found is None:
        return None
    value = float(found[2]) if found[3] else int(found[2])
    return Override(OverrideType.CHANGE, found[1], ValueType.ELEMENT, value, input_line=line)


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return "${" not in value and value != _MISSING
    return value is None or isinstance(value, bool | int | float)


def _nodes(node: Any) -> Iterator[Any]:
    yield node
    if isinstance(node, DictConfig | ListConfig) and isinstance(node._content, dict | list):
        inner = node._content.values() if isinstance(node._content, dict) else node._content
        for child in inner:
            yield from _nodes(child)


def _is_untyped(node: Any) -> bool:
    """Whether `node` takes any value, and keeps it unchanged."""
    if isinstance(node, DictConfig | ListConfig):
        data = node._metadata
        return data.object_type in (None, dict, list) and data.ref_type in (Any, None) and data.element_type is Any
    return type(node) is AnyNode
