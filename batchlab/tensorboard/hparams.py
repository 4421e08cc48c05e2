"""The messages of TensorBoard's HPARAMS tab: a run's session, and the study's columns.

Not with `torch.utils.tensorboard`, which writes booleans as numbers and imports torch.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import (
    DATA_TYPE_BOOL,
    DATA_TYPE_FLOAT64,
    DATA_TYPE_STRING,
    STATUS_FAILURE,
    STATUS_SUCCESS,
    Experiment,
    HParamInfo,
    MetricInfo,
    MetricName,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

from batchlab.recording.masking import masked
from batchlab.records import RunStatus


def session_start(hparams: Mapping[str, object], *, run_id: str, group: str, started: float) -> Summary:
    """The start of a run: its options, secrets masked, and its `group` of seeds; `started` in seconds since 1970."""
    info = SessionStartInfo(model_uri=run_id, group_name=group, start_time_secs=started)
    for name, value in typed(hparams).items():
        if isinstance(value, bool):  # before numbers: a bool is an int
            info.hparams[name].bool_value = value
        elif isinstance(value, str):
            info.hparams[name].string_value = value
        else:
            info.hparams[name].number_value = value
    return _summary(metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=info))


def session_end(status: RunStatus, *, ended: float) -> Summary:
    """The end of a run; TensorBoard distinguishes success and failure."""
    known = STATUS_SUCCESS if status is RunStatus.COMPLETED else STATUS_FAILURE
    info = SessionEndInfo(status=known, end_time_secs=ended)
    return _summary(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=info))


def experiment(
    runs: Sequence[Mapping[str, object]], *, columns: Iterable[str], tags: Iterable[str], now: float
) -> Summary:
    """The study's table: a typed column for each of `columns` that a run has, and a metric for each of `tags`.

    Each column lists its values, so that it can be filtered by them; a mix of numbers and text becomes text.
    """
    table = [typed(run) for run in runs]
    infos = []
    for column in columns:
        values = {repr(run[column]): run[column] for run in table if column in run}
        if values:
            info = HParamInfo(name=column, type=_type(values.values()), differs=len(values) > 1)
            info.domain_discrete.extend(sorted(values.values(), key=lambda value: (str(type(value)), value)))
            infos.append(info)
    metrics = [MetricInfo(name=MetricName(tag=tag)) for tag in tags]
    content = Experiment(hparam_infos=infos, metric_infos=metrics, time_created_secs=now)
    return _summary(metadata.EXPERIMENT_TAG, HParamsPluginData(experiment=content))


def typed(hparams: Mapping[str, object]) -> dict[str, bool | float | str]:
    """The options as booleans, numbers and text; unset values and numbers that are not finite are left out.

    With None or nan in one run, a column of numbers would become a column of text, and its filter would hide runs.
    """
    values: dict[str, bool | float | str] = {}
    for name, value in masked(hparams).items():
        if isinstance(value, bool | str):
            values[name] = value
        elif isinstance(value, int | float):
            if math.isfinite(value):
                values[name] = float(value)
        elif value is not None:
            values[name] = str(value)
    return values


def _type(values: Iterable[bool | float | str]) -> Any:
    kinds = {type(value) for value in values}
    if len(kinds) > 1:
        return DATA_TYPE_STRING
    return {bool: DATA_TYPE_BOOL, float: DATA_TYPE_FLOAT64, str: DATA_TYPE_STRING}[kinds.pop()]


def _summary(tag: str, content: HParamsPluginData) -> Summary:
    value = Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(content), tensor=metadata.NULL_TENSOR)
    return Summary(value=[value])
