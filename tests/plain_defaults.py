"""The shipped defaults, read with PyYAML only: as plain values, and as the configuration made from them."""

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from batchlab.config import RunConfig, SweepConfig, from_dict

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@cache
def _parsed(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((CONFIGS / name).read_text(encoding="utf-8")))


def read(name: str) -> dict[str, Any]:
    """A file of `configs/`, as a fresh copy that a test may change."""
    return deepcopy(_parsed(name))


def chosen_groups() -> dict[str, str]:
    """`{"data": "digits", ...}`: the groups of the defaults list that have options."""
    entries = [entry for entry in read("config.yaml")["defaults"] if isinstance(entry, dict)]
    named = {key: option for entry in entries for key, option in entry.items()}
    return {key: option for key, option in named.items() if "/" not in key and " " not in key and option is not None}


def defaults(**changes: Any) -> dict[str, Any]:
    """What `batchlab train` composes, with `changes` at the root."""
    root = {key: value for key, value in read("config.yaml").items() if key not in ("defaults", "hydra")}
    return root | {group: read(f"{group}/{option}.yaml") for group, option in chosen_groups().items()} | changes


def configured(**changes: Any) -> RunConfig:
    """The run that the defaults with `changes` describe."""
    return from_dict(defaults(**changes)).run


def sweep_configured(**changes: Any) -> SweepConfig:
    """The settings of a sweep with the defaults and `changes`."""
    return from_dict(defaults(**changes)).sweep
