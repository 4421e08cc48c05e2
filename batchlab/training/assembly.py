"""Builds the parts of a run from its configuration, in the worker (and once in the preflight process)."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from batchlab import targets
from batchlab.config import RunConfig
from batchlab.config.plan import Plan, learning_rates, plan
from batchlab.errors import BadRequest
from batchlab.task import Task
from batchlab.training.clock.meter import Meter
from batchlab.training.data.batches import length
from batchlab.training.data.fingerprints import data_fingerprint
from batchlab.training.data.loaders.loaded import left_out
from batchlab.training.data.order import SampledOrder, stream_seed
from batchlab.training.data.reading import seed_all
from batchlab.training.data.residence import as_read, on_device
from batchlab.training.devices.device import Device
from batchlab.training.devices.named import device_named
from batchlab.training.devices.precision import Precision, of_other_dtypes
from batchlab.training.ghost_batch_norm import give_ghosts
from batchlab.training.hooks import EpochHook, unsaved
from batchlab.training.losses import loss_module
from batchlab.training.passes.contract import few
from batchlab.training.passes.reduction import with_reduction
from batchlab.training.phase import BUILDING, Phase
from batchlab.training.session import Session
from batchlab.training.state import Plug, RunState, ignore_note
from batchlab.training.updates.eager import Eager
from batchlab.training.updates.optimizer import build_optimizer, group_multiples, peak_lr, untrained
from batchlab.training.updates.own_schedule import own_schedule
from batchlab.training.user_errors import naming_the_argument


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
    offered = {"device": device.torch_device}
    with naming_the_argument():
        return targets.build(config.data, Task, what="data", offered=offered, trust=config.trust)


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


def fingerprint_of_build(config: RunConfig, device: Device) -> str:
    """The fingerprint of the data, which are built and dropped."""
    _, train, val = _read_data(config, device)
    return data_fingerprint(train, val)


def _read_data(config: RunConfig, device: Device) -> tuple[Task, Any, Any]:
    task = build_task(config, device)
    train = as_read(task.train, device, name="train", workers=config.workers, collate=task.collate)
    val = as_read(task.val, device, name="val", workers=config.workers, earlier=train, collate=task.collate)
    return task, train, val


def data_order(task: Task, n: int, seed: int) -> SampledOrder | None:
    """The task's own order of its `n` training examples, if it has one."""
    return None if task.sampler is None else SampledOrder(task.sampler, n, seed)


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
    order = data_order(task, length(data.train), config.seed)
    n_train = length(data.train) if order is None else order.length
    planned = planned or plan(config, n_train)
    epochs = None
    if task.on_epoch is not None:
        epochs = EpochHook(task, n_train=n_train, batch_size=config.batch_size, seed=config.seed)
    prepare_loss(config, task, device)
    model = build_model(config, task, device)
    if frozen := _in_eval_mode(model):
        note(f"in eval mode during training, as the model's code left them: {few(frozen)}")
    optimizer = build_optimizer(config, model, task)
    precision = Precision(config.precision, device)
    precision.prepare(optimizer)
    task = with_reduction(task, model, data.train, precision)
    state = RunState(
        model=model,
        optimizer=optimizer,
        task=task,
        train=data.train,
        val=data.val,
        order=order,
        device=device,
        precision=precision,
        meter=Meter(peaks=device.peaks(), drain=device.drain),
        budget=planned.examples,
        group_multiples=group_multiples(config, optimizer),
        epoch_hook=epochs,
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
        notes=(
            *of_other_dtypes(state.trained, config.precision),
            *untrained(state.trained, optimizer),
            *unsaved(task),
            *left_out(data.train, config.micro_batch_sizes),
            *(task.remarks(model, optimizer) if task.remarks is not None else ()),
        ),
        instruments={plug.instrument_name: plug for plug in instruments(config, planned, task)},
    )


def prepare_loss(config: RunConfig, task: Task, device: Device) -> None:
    """Moves a loss with tensors of its own to the device, with initial values drawn with the run's seed.

    The data's factory makes it, whose random numbers do not depend on the seed: all runs are to have the same data. So
    it is called again, for these values only. The object stays the same, because hooks may refer to it.
    """
    if (loss := loss_module(task)) is None:
        return
    _seed(config, "loss")
    if (drawn := loss_module(build_task(config, device))) is not None:
        loss.load_state_dict(drawn.state_dict())
    loss.to(device.torch_device)


def build_model(config: RunConfig, task: Task, device: Device) -> nn.Module:
    """Builds the model that the model group names, with the run's seed, and moves it to the device.

    Initial weights are drawn with the CPU's generator, so they are the same on every device. `model.ghost_batch` is not
    passed to the factory: it applies to every BatchNorm layer of the finished model. It is returned in training mode.
    """
    group = dict(config.model)
    if group.get("ghost_batch") is not None and _takes(config, "ghost_batch"):
        raise BadRequest(
            f"model.ghost_batch={group['ghost_batch']} is batchlab's own option for all BatchNorm layers, but "
            f"{group['_target_']} also has a parameter 'ghost_batch': rename that parameter"
        )
    ghost_batch = group.pop("ghost_batch", None)
    _seed(config, "weights")
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
    _set_training_mode(model)
    _seed(config, "training")  # for dropout: independent of what initialisation drew
    return model


def _in_eval_mode(model: nn.Module) -> list[str]:
    """The paths of the modules of a model in training mode that are in eval mode, without those inside them."""
    found: list[str] = []
    for path, module in model.named_modules():
        if not module.training and not any(path.startswith(f"{outer}.") for outer in found):
            found.append(path)
    return found


def _seed(config: RunConfig, stream: str) -> None:
    """Seeds the generators of Python, NumPy and PyTorch, of all its devices."""
    seed = stream_seed(config.seed, stream)
    seed_all(seed)
    torch.manual_seed(seed)


def _set_training_mode(model: nn.Module) -> None:
    """Training mode; modules that the factory left in eval mode stay so, unless it left the whole model in eval mode,
    as functions that load pre-trained weights do."""
    frozen = [module for module in model.modules() if not module.training] if model.training else []
    model.train()
    for module in frozen:
        module.training = False


def _takes(config: RunConfig, parameter: str) -> bool:
    factory = targets.resolve(config.model["_target_"], nn.Module, what="model", trust=config.trust)
    return parameter in inspect.signature(factory).parameters
