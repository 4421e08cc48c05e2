"""Builds the parts of a run from its configuration, in the worker (and once in the preflight process)."""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from batchlab import targets
from batchlab.config import RunConfig
from batchlab.config.plan import Plan, learning_rates, plan, scaled
from batchlab.errors import BadRequest
from batchlab.task import Task
from batchlab.training.clock.meter import Meter
from batchlab.training.data.batches import length, stream_seed
from batchlab.training.data.fingerprints import data_fingerprint
from batchlab.training.data.residence import as_read, on_device
from batchlab.training.devices.device import Device
from batchlab.training.devices.named import device_named
from batchlab.training.devices.precision import Precision
from batchlab.training.ghost_batch_norm import give_ghosts
from batchlab.training.own_schedule import own_schedule
from batchlab.training.phase import BUILDING, Phase
from batchlab.training.session import Session
from batchlab.training.state import Plug, RunState, ignore_note
from batchlab.training.updates.eager import Eager


def prepare_process(config: RunConfig) -> Device:
    """Sets what PyTorch keeps per process (threads, determinism, the current device); returns the run's device."""
    torch.set_num_threads(config.threads)
    device = device_named(config.device)
    device.prepare(deterministic=config.deterministic)
    return device


def device_facts(device: Device) -> dict[str, Any]:
    """Facts about the device, and how PyTorch uses it, for the environment section of a record."""
    return {"torch_cuda": torch.version.cuda, "threads": torch.get_num_threads(), **device.facts()}


def build_task(config: RunConfig, device: Device) -> Task:
    """Calls the factory that the data group names."""
    return targets.build(config.data, Task, what="data", offered={"device": device.torch_device}, trust=config.trust)


@dataclass(frozen=True)
class Data:
    """The data a run trains on, and its device."""

    device: Device
    task: Task
    train: Any  # on the device, or a `Stream` to it
    val: Any
    fingerprint: str | None = None  # if it was requested


def build_data(config: RunConfig, device: Device) -> Data:
    """Loads the data that the data group names and moves it to the device."""
    task, train, val = _read_data(config, device)
    return Data(device, task, on_device(train, device), on_device(val, device))


def build_known_data(config: RunConfig, device: Device) -> Data:
    """`build_data` plus the fingerprint, which is computed before the data is moved: otherwise all of it would have to
    be copied back from the GPU."""
    task, train, val = _read_data(config, device)
    fingerprint = data_fingerprint(train, val)
    return Data(device, task, on_device(train, device), on_device(val, device), fingerprint)


def _read_data(config: RunConfig, device: Device) -> tuple[Task, Any, Any]:
    task = build_task(config, device)
    train = as_read(task.train, device, name="train", workers=config.workers)
    val = as_read(task.val, device, name="val", workers=config.workers, earlier=train)
    return task, train, val


# From config, plan and task to instruments: `instruments.panel.build_instruments`, or a substitute for it.
Instruments = Callable[[RunConfig, Plan, Task], Sequence[Plug]]


def assemble(
    config: RunConfig,
    data: Data,
    instruments: Instruments = lambda *_: (),
    *,
    planned: Plan | None = None,
    phase: Phase | None = None,
    note: Callable[[str], None] = ignore_note,
) -> Session:
    """Prepares a run on `data`: a new model in training mode, its optimizer, a meter and the `instruments`.

    `planned` replaces the plan computed from the config. `phase` records how far assembly came, also when it fails, and
    is used by the run afterwards. `note` is called with whatever the run cannot do as requested.
    """
    phase = phase or Phase()
    phase.name = BUILDING
    device, task = data.device, data.task
    planned = planned or plan(config, length(data.train))
    model = build_model(config, task, device).train()
    optimizer = build_optimizer(config, model)
    precision = Precision(config.precision, device)
    precision.prepare(optimizer)
    state = RunState(
        model=model,
        optimizer=optimizer,
        task=task,
        train=data.train,
        val=data.val,
        device=device,
        precision=precision,
        meter=Meter(peaks=device.peaks(), drain=device.drain),
        budget=planned.examples,
        group_multiples=group_multiples(config, optimizer),
        eval_precision=config.eval_precision,
        phase=phase,
        note=note,
    )
    return Session(
        config=config,
        data_fingerprint=data.fingerprint,
        plan=planned,
        peak_learning_rate=peak_lr(config),
        learning_rate=learning_rates(config, planned, peak_lr(config), own_schedule(config)),
        state=state,
        update=Eager(state.losses, optimizer, config.clip_norm, phase=phase),
        instruments={plug.instrument_name: plug for plug in instruments(config, planned, task)},
    )


def build_model(config: RunConfig, task: Task, device: Device) -> nn.Module:
    """Builds the model that the model group names, with the run's seed, and moves it to the device.

    Initial weights are drawn with the CPU's generator, so they are the same on every device. `model.ghost_batch` is not
    passed to the factory: it applies to every BatchNorm layer of the finished model.
    """
    group = dict(config.model)
    if group.get("ghost_batch") is not None and _takes(config, "ghost_batch"):
        raise BadRequest(
            f"model.ghost_batch={group['ghost_batch']} is batchlab's own option for all BatchNorm layers, but "
            f"{group['_target_']} also has a parameter 'ghost_batch': rename that parameter"
        )
    ghost_batch = group.pop("ghost_batch", None)
    torch.manual_seed(stream_seed(config.seed, "weights"))
    offered = {**task.model_args, "task": task, "device": device.torch_device}
    model = targets.build(group, nn.Module, what="model", offered=offered, trust=config.trust).to(device.torch_device)
    if lazy := [name for name, p in model.named_parameters() if nn.parameter.is_lazy(p)]:
        raise BadRequest(
            f"model._target_={config.model['_target_']} has a lazy parameter, '{lazy[0]}', whose size is unknown "
            "before the first batch, but the optimizer needs it: replace nn.Lazy... by a layer with a given size, or "
            "pass a batch through the model in its __init__"
        )
    if not any(p.requires_grad for p in model.parameters()):
        raise BadRequest(f"model._target_={config.model['_target_']} has no trainable parameters")
    if ghost_batch is not None:
        give_ghosts(model, ghost_batch)
    torch.manual_seed(stream_seed(config.seed, "training"))  # for dropout: independent of what initialisation drew
    return model


def _takes(config: RunConfig, parameter: str) -> bool:
    factory = targets.resolve(config.model["_target_"], nn.Module, what="model", trust=config.trust)
    return parameter in inspect.signature(factory).parameters


def build_optimizer(config: RunConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Builds the optimizer with the scaled learning rate (and betas and eps, if the scaling rule changes them)."""
    group = dict(config.optimizer)
    for name in ("lr", "weight_decay"):
        if name in group:
            raise BadRequest(f"optimizer.{name} cannot be set: {name} is a top-level option, use {name}={group[name]}")
    takes = signature_defaults(config)
    if config.weight_decay and "weight_decay" not in takes:
        raise BadRequest(
            f"weight_decay={config.weight_decay} is invalid, as {group['_target_']} has none: use weight_decay=0"
        )
    after = scaled(config, takes)
    if after.betas is not None:
        group["betas"] = after.betas
    if after.eps is not None:
        group["eps"] = after.eps
    offered = {
        "params": [p for p in model.parameters() if p.requires_grad],
        "lr": after.lr,
        "weight_decay": config.weight_decay,
    }
    try:
        return targets.build(group, torch.optim.Optimizer, what="optimizer", offered=offered, trust=config.trust)
    except ValueError as error:  # torch.optim's own bounds, such as Nesterov without momentum
        raise BadRequest(f"optimizer: {error}") from None


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
