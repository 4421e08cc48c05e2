"""JSON files; numbers that JSON cannot express are written as text."""

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
    """The content of a JSON file; OSError if it cannot be read, ValueError if it is not JSON in UTF-8."""
    try:
        return json.loads(path.read_bytes().decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON that every parser accepts: numbers that are not finite become `"nan"`, `"inf"` or `"-inf"`."""
    return json.dumps(plain(value), indent=indent, allow_nan=False, ensure_ascii=False)


def plain(value: Any) -> Any:
    """`value` in the types of JSON: mappings become dicts, tuples become lists, unknown types become text."""
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return number_or_name(value)
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    return encodable(str(value))


def encodable(text: str) -> str:
    """`text` without lone surrogates (from file names that are not text), which UTF-8 cannot encode."""
    return text.encode(errors="replace").decode()


def number_or_name(value: float) -> float | str:
    """`value`, or its name if it is not finite."""
    if math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"


def number(value: Any) -> Any:
    """The inverse of `number_or_name`; other values are returned unchanged."""
    return NOT_FINITE.get(value, value) if isinstance(value, str) else value
