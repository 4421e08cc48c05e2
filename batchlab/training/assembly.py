"""The parts of a run, made from its configuration in the worker (and once in the preflight child)."""

import hashlib
import inspect
from typing import Any

import torch
from torch import nn

from batchlab import targets
from batchlab.config import RunConfig
from batchlab.config.plan import scaled
from batchlab.errors import BadRequest
from batchlab.task import Task
from batchlab.training.batches import Stream, gather, length, stream_seed, tensors
from batchlab.training.devices.device import Device
from batchlab.training.devices.named import device_named
from batchlab.training.devices.precision import Precision
from batchlab.training.ghost_batch_norm import give_ghosts
from batchlab.training.host_rows import HostRows
from batchlab.training.meter import Meter
from batchlab.training.residence import as_read, on_device
from batchlab.training.state import RunState


def prepare_process(config: RunConfig) -> Device:
    """Sets what PyTorch keeps per process (threads, determinism, the current device); returns the run's device."""
    torch.set_num_threads(config.threads)
    device = device_named(config.device)
    device.prepare(deterministic=config.deterministic)
    return device


def device_facts(device: Device) -> dict[str, Any]:
    """What a record's environment says of the device and of how PyTorch uses it."""
    return {"torch_cuda": torch.version.cuda, "threads": torch.get_num_threads(), **device.facts()}


def build_task(config: RunConfig, device: Device) -> Task:
    """What the data group names, called."""
    return targets.build(config.data, Task, what="data", offered={"device": device.torch_device}, trust=config.trust)


Data = tuple[Task, Any, Any]  # the task, and its training and validation set: on the device, or `Stream`s to it


def build_data(config: RunConfig, device: Device) -> Data:
    """What a run trains on."""
    task, train, val = _read_data(config, device)
    return task, on_device(train, device), on_device(val, device)


def build_known_data(config: RunConfig, device: Device) -> tuple[Data, str]:
    """`build_data` with its fingerprint, which is taken before anything is moved: from a GPU every number would have to
    come back."""
    task, train, val = _read_data(config, device)
    fingerprint = data_fingerprint(train, val)
    return (task, on_device(train, device), on_device(val, device)), fingerprint


def _read_data(config: RunConfig, device: Device) -> Data:
    task = build_task(config, device)
    train = as_read(task.train, device, name="train", workers=config.workers)
    val = as_read(task.val, device, name="val", workers=config.workers, beside=train)
    return task, train, val


def build_state(
    config: RunConfig,
    data: Data,
    device: Device,
    *,
    budget: int,
    precision: Precision | None = None,
) -> RunState:
    """A run about to train on `data` for `budget` examples: a fresh model in training mode, its optimizer, a meter."""
    task, train, val = data
    model = build_model(config, task, device).train()
    optimizer = build_optimizer(config, model)
    precision = precision or Precision(config.precision, device)
    precision.prepare(optimizer)
    meter = Meter(peaks=device.peaks(), drain=device.drain)
    return RunState(
        *(model, optimizer, task, train, val, device, precision, meter, budget), eval_precision=config.eval_precision
    )


def build_model(config: RunConfig, task: Task, device: Device) -> nn.Module:
    """What the model group names, called at the run's seed and moved to the device.

    Initial weights come from the CPU's generator, so that they are the same on every device. `model.ghost_batch` is
    not the factory's: it is for every BatchNorm layer of what the factory makes.
    """
    group = dict(config.model)
    if group.get("ghost_batch") is not None and _takes(config, "ghost_batch"):
        raise BadRequest(
            f"model.ghost_batch={group['ghost_batch']} is batchlab's, for every BatchNorm layer, and "
            f"{group['_target_']} takes a ghost_batch of its own: give that parameter another name"
        )
    ghost_batch = group.pop("ghost_batch", None)
    torch.manual_seed(stream_seed(config.seed, "weights"))
    offered = {**task.model_args, "task": task, "device": device.torch_device}
    model = targets.build(group, nn.Module, what="model", offered=offered, trust=config.trust).to(device.torch_device)
    if lazy := [name for name, p in model.named_parameters() if nn.parameter.is_lazy(p)]:
        raise BadRequest(
            f"model._target_={config.model['_target_']} does not know the size of '{lazy[0]}' before its first batch, "
            "and optimizers and counts need it: give the layer its size in place of nn.Lazy..., or pass a batch "
            "through the model in its __init__"
        )
    if not any(p.requires_grad for p in model.parameters()):
        raise BadRequest(f"model._target_={config.model['_target_']} has no trainable parameters")
    if ghost_batch is not None:
        give_ghosts(model, ghost_batch)
    torch.manual_seed(stream_seed(config.seed, "training"))  # dropout's stream, whatever the weights took
    return model


def _takes(config: RunConfig, parameter: str) -> bool:
    factory = targets.resolve(config.model["_target_"], nn.Module, what="model", trust=config.trust)
    return parameter in inspect.signature(factory).parameters


def build_optimizer(config: RunConfig, model: nn.Module) -> torch.optim.Optimizer:
    """What the optimizer group names, called with the scaled rate (and betas and eps, where the rule moves them)."""
    group = dict(config.optimizer)
    for name in ("lr", "weight_decay"):
        if name in group:
            raise BadRequest(f"optimizer.{name} is a knob of its own: write {name}={group[name]}")
    takes = signature_defaults(config)
    if config.weight_decay and "weight_decay" not in takes:
        raise BadRequest(f"weight_decay={config.weight_decay}: {group['_target_']} takes none; use weight_decay=0")
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


def peak_rate(config: RunConfig) -> float:
    """The learning rate the scaling rule gives this batch size, before warm-up and schedule."""
    return scaled(config, signature_defaults(config)).lr


def signature_defaults(config: RunConfig) -> dict[str, Any]:
    """The parameters of the optimizer's signature with their defaults."""
    factory = targets.resolve(config.optimizer["_target_"], torch.optim.Optimizer, what="optimizer", trust=config.trust)
    return {p.name: p.default for p in inspect.signature(factory).parameters.values()}


LOOKED_AT = 32  # examples of a set that streams
HASHED_WHOLE_BYTES = 4 * 2**30  # of a set of tensors; half a GiB takes about a second
SAMPLED = 4096  # examples of a larger one
HASHED_BYTES = 64 * 2**20  # brought from the device at once


def data_fingerprint(*sets: Any) -> str:
    """A hash of every number in the sets, so that runs on changed data are told apart.

    Of a set that streams: of its length and of `LOOKED_AT` examples, evenly spaced, as to read all might take hours; of
    tensors of more than `HASHED_WHOLE_BYTES` so of `SAMPLED`. Where tensors lie, and what else the device holds, does
    not matter.
    """
    digest = hashlib.sha256()
    read: list[torch.Tensor] = []
    for data in sets:
        data = data.data if isinstance(data, HostRows) else data
        n = length(data)
        if isinstance(data, Stream):
            digest.update(f"{n} examples".encode())
            data = data.gather(_evenly(n, LOOKED_AT))
        elif sum(t.nbytes for t in tensors(data)) > HASHED_WHOLE_BYTES:
            digest.update(f"{n} examples".encode())
            data = gather(data, _evenly(n, SAMPLED))
        read += tensors(data)
    for tensor in read:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        rows = max(1, HASHED_BYTES * len(tensor) // max(1, tensor.nbytes))
        # What was made on a GPU may be more than the host has room for.
        for piece in torch.split(tensor.detach(), rows):
            digest.update(piece.cpu().contiguous().flatten().view(torch.uint8).numpy().data)  # not copied
    return digest.hexdigest()[:16]


def _evenly(n: int, most: int) -> torch.Tensor:
    count = min(n, most)
    return torch.arange(count) * n // count


def weights_fingerprint(model: nn.Module) -> str:
    """A hash of every number of the model, so that two runs can be seen to have ended at the same bits."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
