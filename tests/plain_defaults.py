"""The shipped defaults as plain values, read with PyYAML alone: no Hydra, nothing of batchlab."""

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@cache
def _parsed(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((CONFIGS / name).read_text(encoding="utf-8")))


def read(name: str) -> dict[str, Any]:
    """A file of `configs/`, as a copy that a test may change."""
    return deepcopy(_parsed(name))


def chosen_groups() -> dict[str, str]:
    """`{"data": "digits", ...}`: the groups of the defaults list that hold knobs."""
    entries = [entry for entry in read("config.yaml")["defaults"] if isinstance(entry, dict)]
    named = {key: option for entry in entries for key, option in entry.items()}
    return {key: option for key, option in named.items() if "/" not in key and " " not in key and option is not None}


def defaults(**changes: Any) -> dict[str, Any]:
    """What `batchlab train` composes, with `changes` at the root."""
    root = {key: value for key, value in read("config.yaml").items() if key not in ("defaults", "hydra")}
    return root | {group: read(f"{group}/{option}.yaml") for group, option in chosen_groups().items()} | changes
