"""Which run a configuration is: ask twice, run once."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from batchlab.config import EVAL_PRECISIONS, RunConfig
from batchlab.recording.knobs import of_the_data

SCHEME = 1  # of the hash; a change of what the same config *means* must raise it
# What is hashed under other names, below.
_OTHERWISE = ("budget", "target", "accumulate", "micro_batch_size", "device", "noise_scale", "eval_precision")
_AS_THEY_ARE = tuple(f.name for f in fields(RunConfig) if f.metadata["identity"] and f.name not in _OTHERWISE)


def run_id(config: RunConfig) -> str:
    """A readable prefix and 10 hex digits of the hash of the identity fields: `bs32-lr0.05-fp32-s0-3f9a...`."""
    accumulate = _micro_batches(config)[1]
    prefix = [f"bs{config.batch_size}", *([f"x{accumulate}"] if accumulate > 1 else []), f"lr{config.lr:g}"]
    if config.lr_scaling != "none":
        prefix.append(config.lr_scaling)
    prefix += [config.precision, f"s{config.seed}"]
    return re.sub(r"[^a-zA-Z0-9._-]", "", "-".join(prefix)) + "-" + digest(identity(config))


def group_id(config: RunConfig) -> str:
    """The id shared by the runs that differ in the seed alone."""
    return run_id(replace(config, seed=0)).replace("-s0-", "-")


def identity(config: RunConfig) -> dict[str, Any]:
    """The identity fields as canonical plain values: two configs that mean the same run give the same."""
    named: dict[str, Any] = {name: getattr(config, name) for name in _AS_THEY_ARE}
    named["budget"] = [config.budget.unit, config.budget.amount]
    target = config.target
    named["target"] = {"metric": target.metric, "value": target.value} if target else {"value": None}
    # accumulate=4 and micro_batch_size=16 are one run at batch_size=64
    named["micro_batches"] = _micro_batches(config)
    named["device"] = config.device.partition(":")[0]
    if config.noise_scale is not None:  # left out where there is none: runs of before the knob keep their ids
        named["noise_scale"] = config.noise_scale
    if config.eval_precision != EVAL_PRECISIONS[0]:  # for the same reason
        named["eval_precision"] = config.eval_precision
    named["model"] = _without_unset(named["model"])  # and again
    named["data"] = of_the_data(named["data"])
    named["scheme"] = SCHEME
    canonical: dict[str, Any] = _canonical(named)
    return canonical


def _without_unset(model: Mapping[str, Any]) -> dict[str, Any]:
    """The group without what came to be a key later and is null: as if it were not there."""
    own = str(model["_target_"]).startswith("batchlab.models.")  # what `norm` means in a user's own is the user's
    later = ("ghost_batch", "norm") if own else ("ghost_batch",)
    return {key: value for key, value in model.items() if key not in later or value is not None}


def digest(values: Mapping[str, Any]) -> str:
    """10 hex digits of the SHA-256 of the values as sorted JSON."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def run_folder(config: RunConfig) -> Path:
    """Where the run lives: `<runs_dir>/<study>/<run_id>`."""
    return study_folder(config) / run_id(config)


def study_folder(config: RunConfig) -> Path:
    """Where the run's study lives."""
    return Path(config.runs_dir) / config.study_name


def _micro_batches(config: RunConfig) -> tuple[int, int]:
    """The size of a step's first micro-batch, and their number."""
    return config.largest_micro_batch, -(-config.batch_size // config.largest_micro_batch)


def _canonical(value: Any) -> Any:
    """20 and 20.0 alike, tuples and lists alike."""
    if isinstance(value, Mapping):
        return {str(key): _canonical(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(entry) for entry in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
