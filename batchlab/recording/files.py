"""JSON as it stands on the disk, with words for the numbers it has none for."""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def now_utc() -> str:
    """The time now as `2026-01-02T03:04:05Z`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_json(path: Path) -> Any:
    """The content of a JSON file; OSError where it cannot be read, ValueError where it is no JSON in UTF-8."""
    try:
        return json.loads(path.read_bytes().decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON that every parser accepts: what is not finite is written as `"nan"`, `"inf"` or `"-inf"`."""
    return json.dumps(plain(value), indent=indent, allow_nan=False, ensure_ascii=False)


def plain(value: Any) -> Any:
    """`value` in the types of JSON: mappings to dicts, tuples to lists, anything unknown to its text."""
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return number_or_word(value)
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    return encodable(str(value))


def encodable(text: str) -> str:
    """`text` without lone surrogates (of file names that are no text): one would take a whole file with it."""
    return text.encode(errors="replace").decode()


def number_or_word(value: float) -> float | str:
    """`value`, or its name where it is not finite."""
    if math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"


def number(value: Any) -> Any:
    """The inverse of `number_or_word`; what is neither a number nor such a name stays what it is."""
    return NOT_FINITE.get(value, value) if isinstance(value, str) else value
