"""The knobs of a run as one flat row, in the order that tables and dashboards show them."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from batchlab.config import EVAL_PRECISIONS, RunConfig, target_name
from batchlab.recording.files import to_json
from batchlab.records import RunRecord

FIRST = ("batch_size", "lr", "lr_scaling", "accumulate", "precision", "seed")
GROUPS = ("data", "model", "optimizer")
NOT_OF_THE_RUN = tuple(f.name for f in fields(RunConfig) if not f.metadata["identity"])  # study, runs_dir, ...


def of_the_run(config: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a run what it is, of its config: the knobs that another value of would make it another run.

    A run of before `eval_precision` was validated in the default of today.
    """
    kept = {
        key: of_the_data(value) if key == "data" else of_the_device(value) if key == "device" else value
        for key, value in config.items()
        if key not in NOT_OF_THE_RUN
    }
    kept.setdefault("eval_precision", EVAL_PRECISIONS[0])
    return kept


def of_the_device(asked: Any) -> Any:
    """`cuda` for `cuda:3`: which of the GPUs it was is no setting of a run. What it was is in its environment."""
    return asked.partition(":")[0] if isinstance(asked, str) else asked


def of_the_data(group: Any) -> Any:
    """What says which data a run has, of its data group: all but whether missing files of ours may be fetched.

    `folder` says it too: there may be fewer examples in another. In a user's own group every key does.
    """
    if not isinstance(group, Mapping) or not str(group.get("_target_")).startswith("batchlab.data."):
        return group
    return {key: value for key, value in group.items() if key != "download"}


def knobs(record: RunRecord) -> dict[str, Any]:
    """Every knob of a run by its dotted name, `None` where it was not set; lists as JSON text.

    The config says what was asked; `micro_batch_size` and `accumulate` are what came of it, and beside
    `model._target_` stands the short `model`. Needs the record alone, so that old runs can be read.
    """
    config = {key: value for key, value in record.config.items() if key not in NOT_OF_THE_RUN}
    config |= {"device": of_the_device(config["device"])} if "device" in config else {}
    names = {group: target_name(config[group]) for group in GROUPS if "_target_" in (config.get(group) or {})}
    derived = {
        "batch_size": record.batch_size,
        "micro_batch_size": max(record.micro_batch_sizes, default=config.get("micro_batch_size")),
        "accumulate": record.accumulate or config.get("accumulate"),
        "lr": config.get("lr"),
        "lr_scaling": config.get("lr_scaling"),
        "lr_scaled": record.lr_scaled,
        "precision": config.get("precision"),
        "seed": record.seed,
        **names,
    }
    return {**derived, **{name: value for name, value in flat(config).items() if name not in derived}}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted names, lists as JSON text; an empty mapping has no name."""
    row: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            row |= flat(value, f"{name}.")
        else:
            row[name] = to_json(value) if isinstance(value, list | tuple) else value
    return row
