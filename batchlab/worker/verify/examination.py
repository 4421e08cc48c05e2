"""`batchlab verify`, in the process that has the model: both gradients in several precisions, and why they differ."""

import copy
import math

import torch

from batchlab.config import RunConfig
from batchlab.errors import BadRequest
from batchlab.instruments.memory import saved_for_backward_bytes
from batchlab.task import Batch, Task, changed
from batchlab.training import assembly
from batchlab.training.data.batches import Batches, gather, length
from batchlab.training.data.order import stream_seed
from batchlab.training.devices.device import Device
from batchlab.training.devices.precision import Precision
from batchlab.training.losses import loss_module
from batchlab.training.passes.contract import GRADIENT, NOT_FINITE, few, refuse
from batchlab.training.passes.contract_of_loss import ONE_PER_TERM
from batchlab.training.passes.contract_passes import training_pass
from batchlab.worker.verify.causes import find_causes
from batchlab.worker.verify.findings import Findings
from batchlab.worker.verify.trial import Trial

BATCHES = 5  # the run's first ones
EXAMPLES = 8  # of the first check, before anything is compared


def examine(config: RunConfig) -> Findings:
    """Compares the gradients of the run's first batches, whole and in micro-batches, at its initial weights.

    In fp32, in float64, and in the run's precision if that is another one. Causes are searched for in float64, where
    rounding is negligible; in fp32 if float64 is not possible.
    """
    device = assembly.prepare_process(config)
    state = assembly.assemble(config, assembly.build_data(config, device)).state
    task, train = state.task, state.train
    seen = training_pass(state.losses, gather(train, torch.arange(min(EXAMPLES, length(train))))).completed()
    refuse(ONE_PER_TERM, seen)
    refuse(GRADIENT, seen)
    del seen  # it holds gradients and a graph
    batch_size, micro_batch_size = config.batch_size, config.micro_batch_sizes[0]
    saved = [saved_for_backward_bytes(state, gather(train, torch.arange(n))) for n in (batch_size, micro_batch_size)]
    total = BATCHES * batch_size
    order = Batches(train, micro_batch_sizes=(batch_size,), seed=config.seed, total=total, device=device)
    batches = [whole for (whole,) in order]

    judge = _trial(config, task, batches, device, "fp32")
    differences, failed = [judge.difference()], ""
    if config.precision != "fp32":
        differences.append(_trial(config, task, batches, device, config.precision).difference())
    try:
        wide = _trial(config, task, batches, device, "float64")
        differences.append(wide.difference())
        judge = wide
    except (RuntimeError, TypeError) as error:  # the model, the data or the loss insists on fp32
        failed = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
        judge = _trial(config, task, batches, device, "fp32")
    decided = next(d for d in differences if d.dtype == judge.dtype)
    if any(math.isnan(value) for value in decided.each):
        raise _not_a_number(judge)
    return Findings(
        micro_batch_sizes=config.micro_batch_sizes,
        differences=tuple(differences),
        float64_failed=failed,
        causes=tuple(find_causes(judge, decided.worst)),
        saved_bytes=(saved[0], saved[1]),
    )


def _trial(config: RunConfig, task: Task, batches: list[Batch], device: Device, dtype: str) -> Trial:
    model = assembly.build_model(config, task, device)
    is_wide = dtype == "float64"
    if is_wide and (loss := loss_module(task)) is not None:
        task = changed(task, loss=copy.deepcopy(loss).double())
    return Trial(
        model=model.double() if is_wide else model,
        task=task,
        precision=Precision("fp32" if is_wide else dtype, device),
        batches=batches,
        micro_batch_sizes=config.micro_batch_sizes,
        dtype=dtype,
        seed=stream_seed(config.seed, "verify"),
    )


def _not_a_number(judge: Trial) -> BadRequest:
    """The error for a gradient that is not finite, and which of the two it is."""
    for accumulated, whole in judge.gradients():
        for gradient, what in ((whole, "the whole batch"), (accumulated, "its micro-batches, not that of the whole,")):
            if names := [name for name, tensor in gradient.items() if not bool(tensor.isfinite().all())]:
                breach = NOT_FINITE.worded(what=f"in {judge.dtype} the gradient of {what}", names=few(names))
                return BadRequest(breach.sentence)
    return BadRequest(
        f"in {judge.dtype} the gradient at the initial weights is so large that its square overflows: check the scale "
        "of the inputs and of the loss"
    )
