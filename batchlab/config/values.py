"""What one value of a config can be, and how it is printed."""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

Group = Mapping[str, Any]  # a config group: the `_target_` that is called, and the keys that it is given

# Text that Hydra reads as itself; other text is quoted.
_BARE = re.compile(r"(?:[A-Za-z_]|\.{0,2}/)[\w./:+-]*|\.\.?", re.ASCII)
_NOT_TEXT = {"true", "false", "null", "nan", "inf"}


def flattened(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings by dotted name, lists whole; an empty mapping has no name."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def is_finite(value: Any) -> bool:
    """Whether `value` is a number that a float can hold: not a bool, nan or infinity, and not 10**400."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_plain(value: Any) -> bool:
    """Whether `value` is a text of one line that is not blank."""
    return isinstance(value, str) and value.strip() != "" and value.isprintable()


def shown(value: Any) -> str:
    """`value` on one line as it would be typed; a text in quotes, to distinguish '8' from 8."""
    return json.dumps(value) if value is None or isinstance(value, bool) else repr(value)


def as_override(value: Any) -> str:
    """A plain value as Hydra's grammar reads it back, after the `=` of an override."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{as_override(entry)}" for name, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(as_override, value)) + "]"
    text = str(value)
    if isinstance(value, int | float) or (_BARE.fullmatch(text) and text.lower() not in _NOT_TEXT):
        return text
    return "'" + re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + found[2].replace("'", r"\'"), text) + "'"


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The single values in `value`, each with its dotted key; the elements of a list have the list's key."""
    if isinstance(value, Mapping):
        for name, entry in value.items():
            yield from leaves(entry, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from leaves(entry, key)
    else:
        yield key, value
