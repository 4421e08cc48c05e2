"""Builds the optimizer of a run, with its parameter groups and their learning rates."""

import contextlib
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from batchlab import targets
from batchlab.config import RunConfig
from batchlab.config.plan import scaled
from batchlab.errors import BadRequest, BatchlabError
from batchlab.printable import listed, printable
from batchlab.task import Task
from batchlab.training.devices.broken_context import is_broken_context
from batchlab.training.devices.out_of_memory import is_out_of_memory
from batchlab.training.losses import loss_module
from batchlab.training.phase import OPTIMIZER, Phase
from batchlab.training.updates.fused_sgd import allow_every_gradient, unfuse
from batchlab.training.updates.modes import to_training

TYPES = {bool: "true or false", int: "a number", float: "a number"}  # what an option of this type takes
WORDS = {"yes": True, "on": True, "y": True, "no": False, "off": False, "n": False}
TAKE_SPARSE = ("torch.optim.SGD", "torch.optim.Adagrad", "torch.optim.SparseAdam")  # gradients
UNSET = ("fused", "foreach")  # true or false, whose default in torch.optim is None


def build_optimizer(config: RunConfig, model: nn.Module, task: Task | None = None) -> torch.optim.Optimizer:
    """Builds the optimizer with the scaled learning rate (and betas and eps, if the scaling rule changes them).

    It gets the trainable parameters of the model, and of the task's loss, as `params` (in the groups of the task's
    `parameter_groups`, if it has any), and as pairs of name and parameter as `named_parameters`, if it takes those.
    """
    group = dict(config.optimizer)
    for name in ("lr", "weight_decay"):
        if name in group:
            raise BadRequest(f"optimizer.{name} cannot be set: {name} is a top-level option, use {name}={group[name]}")
    takes = signature_defaults(config)
    if config.weight_decay and "weight_decay" not in takes:
        raise BadRequest(
            f"weight_decay={config.weight_decay} is invalid, as {group['_target_']} has none: use weight_decay=0"
        )
    _refuse_wrong_types(config, takes)
    after = scaled(config, takes)
    if after.betas is not None:
        group["betas"] = after.betas
    if after.eps is not None:
        group["eps"] = after.eps
    named = _named(model, task)
    params: list[Any] = [p for _, p in named]
    if task is not None and task.parameter_groups is not None:
        if "params" not in takes:
            raise BadRequest(
                f"the task has parameter_groups, but optimizer._target_={group['_target_']} takes no 'params': make "
                "the groups in one of the two"
            )
        params = _groups(task.parameter_groups(model), after.lr, loss_module(task))
    offered = {"params": params, "named_parameters": named, "lr": after.lr, "weight_decay": config.weight_decay}
    try:
        optimizer = targets.build(group, torch.optim.Optimizer, what="optimizer", offered=offered, trust=config.trust)
    except (ValueError, TypeError) as error:  # torch.optim's own bounds, such as Nesterov without momentum
        if isinstance(error, TypeError) and not group["_target_"].startswith("torch."):
            raise  # the user's own code, whose line is shown
        raise BadRequest(f"optimizer: {error}{_given(config)}") from None
    _unfuse_complex(optimizer)
    allow_every_gradient(optimizer)
    to_training(optimizer)
    return optimizer


def _unfuse_complex(optimizer: torch.optim.Optimizer) -> None:
    """PyTorch's fused kernels take no complex parameters: their groups use its other implementation."""
    for group in optimizer.param_groups:
        if group.get("fused") and any(p.is_complex() for p in group["params"]):
            unfuse(optimizer, group)


def _named(model: nn.Module, task: Task | None) -> list[tuple[str, nn.Parameter]]:
    loss = None if task is None else loss_module(task)
    of_loss = [] if loss is None else [(f"loss.{name}", p) for name, p in loss.named_parameters()]
    return [(name, p) for name, p in (*model.named_parameters(), *of_loss) if p.requires_grad]


def _groups(groups: Sequence[Mapping[str, Any]], lr: float, loss: nn.Module | None) -> list[dict[str, Any]]:
    """The groups as the optimizer takes them: `lr`, a multiple in the task's, is a learning rate."""
    made = []
    for position, group in enumerate(groups):
        if not isinstance(group, Mapping) or "params" not in group:
            raise BadRequest(
                f"group {position} of the task's parameter_groups is a {type(group).__name__} without 'params': return "
                'a list of dicts such as {"params": [...], "lr": 0.1}, in which lr is a multiple of the run\'s'
            )
        params = group["params"]
        params = [params] if isinstance(params, torch.Tensor) else list(params)
        changed = {"lr": group["lr"] * lr} if "lr" in group else {}
        made.append({**group, "params": params, **changed})
    seen = {id(p[1] if isinstance(p, tuple) else p) for group in made for p in group["params"]}
    rest = [p for p in loss.parameters() if p.requires_grad and id(p) not in seen] if loss is not None else []
    return [*made, {"params": rest}] if rest else made


def _refuse_wrong_types(config: RunConfig, takes: Mapping[str, Any]) -> None:
    """BadRequest for a text where the optimizer expects true, false or a number. Python takes the text `no` as true, so
    some would be accepted, and others fail in the first step."""
    for name, value in config.optimizer.items():
        default = False if name in UNSET and takes.get(name, 0) is None else takes.get(name)
        if isinstance(value, str) and type(default) in TYPES:
            such_as = WORDS.get(value.lower(), default) if isinstance(default, bool) else default
            raise BadRequest(
                f"optimizer.{name}={printable(value)} is a text, but {config.optimizer['_target_']} takes "
                f"{TYPES[type(default)]}: use for example optimizer.{name}={str(such_as).lower()}"
            )


def _given(config: RunConfig) -> str:
    given = [f"optimizer.{name}={value}" for name, value in config.optimizer.items() if name != "_target_"]
    return f" (given: {printable(', '.join(given))})" if given else ""


@contextlib.contextmanager
def explaining_its_errors(config: RunConfig, trained: nn.Module, phase: Phase) -> Iterator[None]:
    """Around an update, which sets `phase`: BadRequest if the optimizer raises in its step."""
    try:
        yield
    except Exception as error:
        of_optimizer = phase.name == OPTIMIZER and not isinstance(error, BatchlabError)
        if not of_optimizer or is_out_of_memory(error) or is_broken_context(error):
            raise
        raise BadRequest(_why_it_failed(config, trained, error)) from error


def _why_it_failed(config: RunConfig, trained: nn.Module, error: Exception) -> str:
    target = f"optimizer._target_={config.optimizer['_target_']}"
    why = printable((str(error).strip() or type(error).__name__).splitlines()[0].rstrip("."))
    given = {name: p.grad for name, p in trained.named_parameters() if p.grad is not None}
    sparse = [name for name, gradient in given.items() if gradient.is_sparse]
    takes_sparse = config.optimizer["_target_"] in TAKE_SPARSE
    if not sparse or (takes_sparse and not config.weight_decay):
        return f"{target} fails in its first step: {why}{_given(config)}: change its options, or use another optimizer"
    if takes_sparse:
        target, instead = f"weight_decay={config.weight_decay:g} with {target}", "weight_decay=0"
    elif len(sparse) == len(given):
        instead = "optimizer._target_=torch.optim.SparseAdam or optimizer=sgd"
    else:  # SparseAdam takes no other gradients
        instead = "optimizer=sgd"
    if config.weight_decay and not takes_sparse:
        instead += " with weight_decay=0"
    return (
        f"{target} cannot use the sparse gradients of {listed(sparse, 3)} ({why}): use {instead}, or let the "
        "model make dense gradients (sparse=False in nn.Embedding)"
    )


def untrained(trained: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[str]:
    """A sentence about the trainable parameters that the optimizer does not have, if there are any."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    names = [name for name, p in trained.named_parameters() if p.requires_grad and id(p) not in held]
    if names:
        yield f"parameters in no group of the optimizer are not trained: {listed(names, 3)}"


def group_multiples(config: RunConfig, optimizer: torch.optim.Optimizer) -> tuple[float, ...]:
    """For each parameter group, its learning rate as a multiple of the run's; it keeps this multiple during training.

    If the optimizer's factory takes no `lr`, the reference is the `lr` in the optimizer's defaults.
    """
    takes_it = "lr" in signature_defaults(config)
    base = peak_lr(config) if takes_it else getattr(optimizer, "defaults", {}).get("lr")
    return tuple(_multiple(group.get("lr"), base) for group in optimizer.param_groups)


def _multiple(built: Any, base: Any) -> float:
    if built is None or not base:  # it computes its own learning rate from the value set at each step
        return 1.0
    built, base = float(built), float(base)
    # Exactly 1, or a single group would train at a rounded learning rate. A tensor may hold it in single precision.
    return 1.0 if math.isclose(built, base, rel_tol=1e-6) else built / base


def peak_lr(config: RunConfig) -> float:
    """The learning rate that the scaling rule gives for this batch size, before warm-up and schedule."""
    return scaled(config, signature_defaults(config)).lr


def signature_defaults(config: RunConfig) -> dict[str, Any]:
    """The parameters of the optimizer's signature with their defaults."""
    factory = targets.resolve(config.optimizer["_target_"], torch.optim.Optimizer, what="optimizer", trust=config.trust)
    return {p.name: p.default for p in inspect.signature(factory).parameters.values()}
