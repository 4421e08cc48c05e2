"""The task's metrics that are computed from a whole set, because they are no means over terms: F1, AUROC, BLEU."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from batchlab.errors import BadRequest, BatchlabError
from batchlab.task import Batch
from batchlab.training.data.collated import content
from batchlab.training.data.trees import tensors
from batchlab.training.devices.broken_context import is_broken_context
from batchlab.training.devices.out_of_memory import is_out_of_memory
from batchlab.training.user_errors import message_and_place

TARGETS = ("target", "targets", "y_true")  # names of a second parameter that gets `batch[1]`


class WholeMetrics:
    """The metrics of one pass through a set, in the order of the task; they start without what they saw before."""

    def __init__(self, metrics: Mapping[str, Any]) -> None:
        self._metrics = metrics
        self._moved = False
        self.reset()

    def reset(self) -> None:
        """Forgets what was seen, and gives back its memory."""
        for name, metric in self._metrics.items():
            _called(name, "reset", metric.reset)

    def update(self, outputs: Any, batch: Batch) -> None:
        """Adds a batch. Metrics that are modules are first moved to the device of the outputs."""
        if self._metrics and not self._moved:
            self._move(outputs)
        for name, metric in self._metrics.items():
            second = _target(name, batch) if _takes_target(metric) else content(batch)
            _called(name, "update", functools.partial(metric.update, outputs, second))

    def computed(self, *, strict: bool = True) -> dict[str, float]:
        """Each metric of what was seen, which is then forgotten. BadRequest if one is not a number.

        Unless `strict`, metrics that raise are left out: a few examples may be too few for them.
        """
        found = {}
        for name, metric in self._metrics.items():
            try:
                value = _called(name, "compute", metric.compute)
            except BadRequest:
                if strict:
                    raise
                continue
            found[name] = _number(name, value)
        self.reset()
        return found

    def _move(self, outputs: Any) -> None:
        devices = {tensor.device for tensor in tensors(outputs)}
        for metric in self._metrics.values():
            if isinstance(metric, nn.Module) and len(devices) == 1:
                metric.to(next(iter(devices)))
        self._moved = True


def _called(name: str, method: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        if isinstance(error, BatchlabError) or is_out_of_memory(error) or is_broken_context(error):
            raise
        raise BadRequest(
            f"whole_metrics['{name}'].{method} fails: {message_and_place(error)}: update gets the outputs of a batch "
            "and the batch, or if its second parameter is named target, batch[1]"
        ) from error


def _takes_target(metric: Any) -> bool:
    """Whether `update` takes (preds, target), as metrics of torchmetrics do, and not (outputs, batch)."""
    second = [*inspect.signature(metric.update).parameters.values()][1:2]
    if second and second[0].name in (*TARGETS, "batch"):
        return second[0].name != "batch"
    return any(kind.__module__.partition(".")[0] == "torchmetrics" for kind in type(metric).__mro__)


def _target(name: str, batch: Batch) -> Any:
    given = content(batch)
    if not isinstance(given, tuple | list) or len(given) < 2:
        raise BadRequest(
            f"whole_metrics['{name}'] takes (preds, target), but a batch of this task is a {type(given).__name__}, "
            "which has no batch[1]: give an object whose update takes (outputs, batch), and picks the target"
        )
    return given[1]


def _number(name: str, value: Any) -> float:
    number = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
    if isinstance(number, int | float):
        return float(number)
    shape = f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""
    raise BadRequest(
        f"whole_metrics['{name}'].compute returns a {type(value).__name__}{shape}: return one number, or a 0-d tensor, "
        "such as the mean over classes; give several metrics separately, each by its name"
    )
