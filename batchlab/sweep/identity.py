"""The identity of a run, a hash of its configuration, so that no run is made twice."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from batchlab.config import RunConfig
from batchlab.config.key import compared
from batchlab.config.option_row import IDENTITY, micro_batches

SCHEME = 1  # of the hash; increase it if the same config starts to *mean* something else


def run_id(config: RunConfig) -> str:
    """A readable prefix and 10 hex digits of the hash of the identity fields: `bs32-lr0.05-fp32-s0-3f9a...`."""
    accumulate = micro_batches(config.batch_size, config.accumulate, config.micro_batch_size)[1]
    prefix = [f"bs{config.batch_size}", *([f"x{accumulate}"] if accumulate > 1 else []), f"lr{config.lr:g}"]
    if config.lr_scaling != "none":
        prefix.append(config.lr_scaling)
    prefix += [config.precision, f"s{config.seed}"]
    return re.sub(r"[^a-zA-Z0-9._-]", "", "-".join(prefix)) + "-" + digest(identity(config))


def group_id(config: RunConfig) -> str:
    """The id shared by runs that differ only in the seed."""
    return run_id(replace(config, seed=0)).replace("-s0-", "-")


def identity(config: RunConfig) -> dict[str, object]:
    """A run's identity as canonical plain values: equal for two configs that mean the same run."""
    return {**compared(config, IDENTITY), "scheme": SCHEME}


def digest(values: Mapping[str, object]) -> str:
    """10 hex digits of the SHA-256 of the values as sorted JSON."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def run_folder(config: RunConfig) -> Path:
    """The run's folder: `<runs_dir>/<study>/<run_id>`."""
    return study_folder(config) / run_id(config)


def study_folder(config: RunConfig) -> Path:
    """The folder of the run's study."""
    return Path(config.runs_dir) / config.study_name
