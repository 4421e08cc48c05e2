"""What `configure_optimizers` of a LightningModule returns: its parameter groups are used, and nothing else of it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from batchlab.errors import BadRequest
from batchlab.printable import listed, printable

IMPLEMENTATION = ("foreach", "fused", "capturable", "differentiable")  # options that choose how, not what
MISSING = object()


def refuse_manual(model: Any) -> None:
    """BadRequest if the module steps its optimizers by itself."""
    if not getattr(model, "automatic_optimization", True):
        raise BadRequest(
            f"{type(model).__name__} sets automatic_optimization=False, so it makes its own optimizer steps, which "
            "batchlab cannot measure: return the loss from training_step, without manual_backward and step"
        )


def groups(model: Any) -> list[dict[str, Any]]:
    """The parameter groups, as `parameter_groups` of the Task: with the options in which they differ, and learning
    rates as multiples of the optimizer's."""
    refuse_manual(model)
    optimizer, _ = _configured(model)
    if optimizer is None:
        return [{"params": [p for p in model.parameters() if p.requires_grad]}]
    return [
        {"params": [p for p in group["params"] if p.requires_grad], **own}
        for group, own in zip(optimizer.param_groups, _options(optimizer)[1], strict=True)
    ]


def replaced(model: Any, optimizer: Any) -> Iterator[str]:
    """A sentence about each thing of `configure_optimizers` that the `optimizer` of the run does not have; if that is
    None, the task has groups of its own."""
    if optimizer is None:
        yield f"configure_optimizers of {type(model).__name__} is not called: the task has its own parameter_groups"
        return
    theirs, schedulers = _configured(model)
    if theirs is None:
        return
    common, own = _options(theirs)
    ours = {name: value for name, value in optimizer.defaults.items() if name in common and name not in IMPLEMENTATION}
    differing = {name: common[name] for name, value in ours.items() if not _equal(common[name], value)}
    if differing or type(theirs).__name__ != type(optimizer).__name__:
        shown = ", ".join(f"{name}={_shown(value)}" for name, value in differing.items())
        yield (
            f"{type(theirs).__name__}({shown}) of configure_optimizers is replaced by the options optimizer, lr and "
            "weight_decay; its parameter groups are used"
        )
    for scheduler in schedulers:
        yield f"{type(scheduler).__name__} of configure_optimizers is replaced by the option schedule"
    given = list(dict.fromkeys(name for group in own for name in group if name != "lr"))
    if unknown := [name for name in given if name not in optimizer.defaults]:
        yield (
            f"{listed(unknown, 5)} of the groups of configure_optimizers has no effect, as {type(optimizer).__name__} "
            "does not have it"
        )
    if everywhere := [name for name in given if all(name in group for group in own) and name in optimizer.defaults]:
        yield (
            f"every group of configure_optimizers has its own {listed(everywhere, 5)}, which holds instead of that of "
            "the run"
        )


def _configured(model: Any) -> tuple[Any, list[Any]]:
    """The one optimizer, or None, and the schedulers."""
    name = type(model).__name__
    try:
        returned = model.configure_optimizers()
    except Exception as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadRequest(
            f"configure_optimizers of {name}, which is called for its parameter groups, fails without a Trainer "
            f"({printable(why)}): give Task.from_lightning parameter_groups=..., and it is not called"
        ) from error
    parts = list(returned) if isinstance(returned, list | tuple) else [returned]
    schedulers: list[Any] = []
    if len(parts) == 2 and isinstance(parts[0], list | tuple):
        parts, second = list(parts[0]), parts[1]
        schedulers = list(second) if isinstance(second, list | tuple) else [second]
    optimizers = []
    for part in parts:
        schedulers += [part["lr_scheduler"]] if isinstance(part, Mapping) and "lr_scheduler" in part else []
        optimizers.append(part["optimizer"] if isinstance(part, Mapping) else part)
    optimizers = [optimizer for optimizer in optimizers if optimizer is not None]
    if len(optimizers) > 1:
        raise BadRequest(
            f"configure_optimizers of {name} returns {len(optimizers)} optimizers, but a run has one: return one with "
            "several parameter groups; alternating steps, as of a GAN, cannot be trained"
        )
    if optimizers and not hasattr(optimizers[0], "param_groups"):
        raise BadRequest(f"configure_optimizers of {name} returns a {type(optimizers[0]).__name__}, not an optimizer")
    found = (part["scheduler"] if isinstance(part, Mapping) else part for part in schedulers)
    return (optimizers[0] if optimizers else None), [scheduler for scheduler in found if scheduler is not None]


def _options(optimizer: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The options of the optimizer as a whole, and for each group those that are its own.

    An option of which all groups have the same value is the optimizer's. Else it is the optimizer's default; or of the
    learning rate, if no group has that, the largest.
    """
    found = optimizer.param_groups
    common: dict[str, Any] = {}
    own: list[dict[str, Any]] = [{} for _ in found]
    for name, default in optimizer.defaults.items():
        values = [_lr(group) if name == "lr" else group.get(name, default) for group in found]
        if all(_equal(value, values[0]) for value in values):
            common[name] = values[0]
            continue
        if any(_equal(value, default) for value in values) and not (name == "lr" and not default):
            common[name] = default
        elif name == "lr":
            common[name] = max(values)
        for group, value in zip(own, values, strict=True):
            if not _equal(value, common.get(name, MISSING)):
                group[name] = value / float(common[name]) if name == "lr" else value
    return common, own


def _lr(group: Mapping[str, Any]) -> float:
    """The learning rate of a group as it was given: schedulers change it when they are made. BadRequest if the
    optimizer finds it itself."""
    lr = group.get("max_lr", group.get("initial_lr", group["lr"]))
    if lr is None:
        raise BadRequest(
            "a parameter group of configure_optimizers has no learning rate (lr=None), of which the group's multiple "
            "would be known: give Task.from_lightning parameter_groups=..., or give that optimizer an lr"
        )
    return float(lr)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Sequence) and isinstance(other, Sequence) and not isinstance(one, str):
        return list(one) == list(other)
    return bool(one == other)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else printable(str(value))
