"""The options of a run as one flat row, in the order in which tables and dashboards show them."""

from collections.abc import Mapping

from batchlab.config import target_name
from batchlab.config.option_row import IDENTITY, device_kind
from batchlab.config.options import FIRST, MICRO_BATCHES, WITH_TARGETS, that_move
from batchlab.config.values import flattened
from batchlab.recording.files import to_json
from batchlab.records import RunRecord


def flat_options(record: RunRecord) -> dict[str, object]:
    """Every option of a run by its dotted name, `None` if it was not set; lists as JSON text.

    Values are those of the config, but `micro_batch_size` and `accumulate` are as used, and the short `model` is
    given in addition to `model._target_`. Needs only the record, so that old runs can be read.
    """
    config = {name: record.config[name] for name in that_move(record.config, IDENTITY)}
    if "device" in config:
        config["device"] = device_kind(config["device"])
    shown: dict[str, object] = {}
    for name in (*MICRO_BATCHES, *FIRST):
        shown[name] = config.get(name)
        if name == "lr_scaling":
            shown["lr_scaled"] = record.lr_scaled  # after the scaling rule
    shown |= {"batch_size": record.batch_size, "seed": record.seed}
    shown["micro_batch_size"] = max(record.micro_batch_sizes, default=config.get("micro_batch_size"))
    shown["accumulate"] = record.accumulate or config.get("accumulate")
    # The name of a schedule is a text.
    shown |= {name: target_name(config[name]) for name in WITH_TARGETS if "_target_" in (config.get(name) or {})}
    return {**shown, **{name: value for name, value in flat(config).items() if name not in shown}}


def flat(values: Mapping[str, object]) -> dict[str, object]:
    """Nested mappings as dotted names, lists as JSON text; empty mappings are left out."""
    return {name: to_json(value) if isinstance(value, list | tuple) else value for name, value in flattened(values)}
