"""The fields of `Task.from_lightning`: the steps of a LightningModule, without a Trainer."""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from batchlab.adapters.configured import groups, refuse_manual, replaced
from batchlab.adapters.installed import require
from batchlab.adapters.lightning_hooks import base_of, overridden, refuse_unusable, unused
from batchlab.errors import BadRequest
from batchlab.printable import listed

Fields = dict[str, Any]
Outputs = dict[str, tuple[Any, float, Any]]  # by the logged name: a value, its weight in the mean, and reduce_fx
OF_OUTPUTS = ("forward", "metrics", "whole_metrics")  # fields that `logged` leaves no outputs for


def fields(module: Any, logged: Mapping[str, bool], changes: Fields) -> Fields:
    """Of `Task.from_lightning`, without the data; `changes` are the user's own fields, and replace the module's."""
    require("Task.from_lightning", "Lightning", "lightning", "pytorch_lightning")
    kind = module if isinstance(module, type) else type(module)
    base = base_of(kind)
    if base is None:
        raise BadRequest(
            f"Task.from_lightning was given {kind.__name__}, which is not a LightningModule: give the class that "
            "model._target_ builds, as Task.from_lightning(Net, MyDataModule())"
        )
    refuse_unusable(kind, base)
    if not isinstance(module, type):
        refuse_manual(module)
    if not overridden(kind, base, "training_step"):
        raise BadRequest(f"{kind.__name__} has no training_step, which computes the loss: write one")
    if logged and not overridden(kind, base, "validation_step"):
        raise BadRequest(f"logged={[*logged]} was given, but {kind.__name__} has no validation_step that logs it")
    if logged and (both := [name for name in OF_OUTPUTS if name in changes]):
        raise BadRequest(
            f"logged= takes what validation_step logs in place of the model's outputs, so {listed(both)} cannot be "
            "given too: log that metric in validation_step, or leave logged= out"
        )
    own_groups = "parameter_groups" in changes

    def remarks(model: Any, optimizer: Any) -> Iterator[str]:
        refuse_manual(model)
        yield from unused(type(model), measured=bool(logged))
        yield from replaced(model, None if own_groups else optimizer)

    made: Fields = {"remarks": remarks} | ({} if "loss" in changes else {"training_loss": training_loss})
    made |= {} if own_groups else {"parameter_groups": groups}
    if logged:
        made |= {"forward": logs_of_validation, "whole_metrics": {name: Logged(name) for name in logged}}
        made["higher_is_better"] = {**logged, **changes.get("higher_is_better", {})}
        return changes | made
    return made | changes


def make_loader_of(data: Any) -> Callable[[str, int, int], Any]:
    """Makes the loaders of a LightningDataModule with any batch size, in the way of Lightning's batch size finder."""
    if not hasattr(data, "train_dataloader"):
        if callable(data):
            return data  # type: ignore[no-any-return]
        raise BadRequest(
            f"Task.from_lightning was given a {type(data).__name__} as its data: give a LightningDataModule, a "
            "function make_loader(split, batch_size, seed), or train=... and val=..."
        )
    kind = type(data)
    if isinstance(data, type):
        raise BadRequest(f"Task.from_lightning was given the class {data.__name__}: give an object, {data.__name__}()")
    if (base := base_of(kind, "LightningDataModule")) is not None:
        refuse_unusable(kind, base)
    data.prepare_data()
    data.setup("fit")

    def make_loader(split: str, batch_size: int, seed: int) -> Any:
        del seed  # of the random numbers with which it is called
        set_batch_size(data, batch_size)
        method = "train_dataloader" if split == "train" else "val_dataloader"
        loader = getattr(data, method)()
        size = getattr(loader, "batch_size", None) or getattr(
            getattr(loader, "batch_sampler", None), "batch_size", None
        )
        if size is not None and size != batch_size:
            raise BadRequest(
                f"{method}() of {kind.__name__} gives batches of {size} where {batch_size} was requested: it must use "
                "self.batch_size (or self.hparams.batch_size)"
            )
        return loader

    return make_loader


def set_batch_size(data: Any, batch_size: int) -> None:
    """Sets `batch_size`, or `hparams.batch_size`; BadRequest if there is neither."""
    hparams = getattr(data, "hparams", {})
    if not hasattr(data, "batch_size") and "batch_size" not in hparams:
        raise BadRequest(
            f"{type(data).__name__} has no batch_size, so its loaders cannot be made with that of a run: set "
            "self.batch_size in __init__, and use it in train_dataloader() and val_dataloader()"
        )
    if hasattr(data, "batch_size"):
        data.batch_size = batch_size
    if "batch_size" in hparams:
        hparams["batch_size"] = batch_size


def training_loss(model: Any, batch: Any) -> Any:
    """What `training_step` returns, as `training_loss` of the Task; what it logs is dropped."""
    found: Outputs = {}
    with logging_to(model, found, batch):
        returned = model.training_step(batch, *_rest(model.training_step))
    for value, *_ in found.values():
        if model.training and hasattr(value, "compute") and hasattr(value, "reset"):
            value.reset()  # as Lightning does after an epoch: some metrics keep every prediction
    loss = returned.get("loss") if isinstance(returned, Mapping) else returned
    if loss is None:
        raise BadRequest(
            f"training_step of {type(model).__name__} returned no loss, which skips the batch in Lightning: return the "
            "loss, or a dict with 'loss'; for batches without terms give Task.from_lightning a count=... that is 0"
        )
    return loss


def logs_of_validation(model: Any, batch: Any) -> Outputs:
    """What `validation_step` logs, as `forward` of the Task."""
    found: Outputs = {}
    with logging_to(model, found, batch):
        model.validation_step(batch, *_rest(model.validation_step))
    return found


@contextlib.contextmanager
def logging_to(model: Any, found: Outputs, batch: Any) -> Iterator[None]:
    """Replaces `self.log` of the model, which needs a Trainer; `log_dict` calls it."""

    def log(name: str, value: Any, *_: Any, batch_size: int | None = None, reduce_fx: Any = "mean", **__: Any) -> None:
        found[name] = value, examples(batch) if batch_size is None else batch_size, reduce_fx

    model.log = log
    try:
        yield
    finally:
        del model.log


class Logged:
    """One of the `whole_metrics`: what `validation_step` logs under a name. A number is averaged over the examples, as
    Lightning does; a metric of torchmetrics is computed at the end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._metric: Any = None
        self.reset()

    def reset(self) -> None:
        if self._metric is not None:
            self._metric.reset()
        self._metric, self._sum, self._weight = None, 0.0, 0.0

    def update(self, outputs: Outputs, batch: Any) -> None:
        del batch
        if self.name not in outputs:
            raise BadRequest(
                f"logged has {self.name!r}, but validation_step logs {listed(list(outputs), 5) or 'nothing'}: use the "
                "name that is given to self.log"
            )
        value, weight, reduce_fx = outputs[self.name]
        if hasattr(value, "compute"):
            self._metric = value
        elif getattr(reduce_fx, "__name__", reduce_fx) not in ("mean", "avg"):
            raise BadRequest(
                f"self.log({self.name!r}, ..., reduce_fx={reduce_fx!r}) cannot be measured, only a mean: log a metric "
                "of torchmetrics instead of a number"
            )
        else:
            self._sum, self._weight = self._sum + float(value) * weight, self._weight + weight

    def compute(self) -> Any:
        return self._metric.compute() if self._metric is not None else self._sum / self._weight


def examples(batch: Any) -> int:
    """Of a batch, as Lightning takes them from it: the length of its first tensor."""
    if hasattr(batch, "dim"):
        return len(batch) if batch.dim() else 1
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    return next((n for n in map(examples, parts) if n), 0)


def _rest(step: Callable[..., Any]) -> tuple[int, ...]:
    """The arguments after the batch: its index, and that of the loader, if the step takes them."""
    parameters = [*inspect.signature(step).parameters.values()]
    if parameters and parameters[0].name == "dataloader_iter":
        raise BadRequest(f"{step.__name__} takes dataloader_iter: write it with (self, batch, batch_idx)")
    required = [p for p in parameters[1:] if p.name in ("batch_idx", "dataloader_idx") or p.default is p.empty]
    return (0,) * sum(p.kind is not p.VAR_KEYWORD for p in required)
