"""One probe, in a separate process: whether a micro-batch of this size fits, and how much memory and time it takes."""

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from batchlab import targets
from batchlab.config import RunConfig, to_dict
from batchlab.config.options import GROUPS
from batchlab.config.plan import Plan
from batchlab.errors import BadRequest
from batchlab.host.nvml import full_uuid, process_bytes
from batchlab.instruments.memory_account import SIZES, account
from batchlab.recording.masking import concealed
from batchlab.records import RunStatus
from batchlab.records.quantities import PEAK_RESERVED
from batchlab.science.memory.largest_fit import Outcome, Probe
from batchlab.science.memory.memory_model import Account
from batchlab.task import Task
from batchlab.training import assembly
from batchlab.training.clock.busy import busy_share_of
from batchlab.training.data.batches import MicroBatches, gather, length
from batchlab.training.devices.device import Device, Peaks
from batchlab.training.devices.out_of_memory import how_it_failed, is_ambiguous, is_kernel_limit
from batchlab.training.devices.process_memory import give_freed_pages_back
from batchlab.training.first_error import finally_do
from batchlab.training.passes.evaluation import by_example
from batchlab.training.phase import BATCH, DATA, VALIDATION, Phase
from batchlab.training.state import RunState
from batchlab.training.updates.costly_batch import costly_batch
from batchlab.training.updates.update import Update

MOST_STEPS = 21  # on the CPU, where each step is timed separately
WARM_UP_SECONDS = 1.0  # of steps before a GPU is timed: its clock rises only under load
WINDOW_SECONDS = 0.05  # of GPU steps that are timed together, so that synchronising takes a small share
ENDLESS = 2**40  # examples
KINDS: dict[str, type] = {"data": Task, "model": nn.Module, "optimizer": torch.optim.Optimizer}  # what a group creates


@dataclass
class _Course:
    """The progress of a probe and its results so far: it may fail anywhere."""

    phase: Phase = field(default_factory=Phase)
    seconds: list[float] = field(default_factory=list)
    n_train: int | None = None
    n_val: int | None = None
    state: RunState | None = None
    retries_before: int = 0  # of the allocator, before training


def probe(
    config: RunConfig,
    size: int,
    *,
    allowed: int | None,
    headroom: float,
    exact: bool,
    steps: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Probe, Account | None]:
    """Trains `steps` steps with micro-batches of `size` examples, `config.accumulate` per step, and validates once.

    If steps are fast, more follow until `seconds` have passed; a GPU is warmed up before them. `allowed` is in bytes
    beyond the process with its libraries loaded; None: the free memory of the CUDA device minus the share `headroom`.
    Where examples differ in cost, a batch of the costliest is trained on first.
    Data, weights, gradients and optimizer state count. The bytes are those of training; a validation that does not
    fit is halved, as in a run. `exact`: freed host memory does not count; otherwise it is kept, as in a run. Data with
    fewer examples is repeated. Never raises: an error is the probe's outcome. The bytes by category are returned for a
    probe of 4 or more examples that fitted.
    """
    accumulate = len(config.micro_batch_sizes)
    # No scaling rule: it does not affect memory, and some rules refuse a size far from the reference.
    config = replace(config, batch_size=size * accumulate, micro_batch_size=size, accumulate=None, lr_scaling="none")
    course, peaks, retries = _Course(), dict[str, int](), 0
    outcome, reason, counted, busy = Outcome.FITS, "", None, None
    try:
        device = assembly.prepare_process(config)
        if exact:
            give_freed_pages_back()
        _import_targets(config)
        marks = device.limited_peaks()
        marks.reset()
        if allowed is None:
            allowed = int((device.free_bytes() or 0) * (1 - headroom))
        else:
            allowed -= (taken := _context_bytes(device))
            if allowed <= 0:
                raise BadRequest(
                    f"CUDA and its libraries take {taken / 2**20:,.0f} MiB of {device}, so memory_limit leaves nothing "
                    "for training: use a larger one"
                )
        with device.limited(allowed):
            with finally_do(lambda: peaks.update(marks.read())):
                _train(config, device, course, marks, steps, seconds, clock)
            # Of training: a halved validation causes some too.
            retries = device.allocator_retries() - course.retries_before
            _validate(course, min(size, config.eval_batch_size))
        busy, counted = _busy(config, course, size, clock), _accounted(config, course, size)
    except (Exception, SystemExit) as error:
        outcome, reason = _judged(error, config)
    if outcome is Outcome.FITS and retries:
        outcome, reason = Outcome.RETRIES, f"it fitted only after the allocator had emptied its cache ({retries} times)"
    made = Probe(
        size=size,
        outcome=outcome,
        accumulate=accumulate,
        phase="" if outcome in (Outcome.FITS, Outcome.RETRIES) else course.phase.name,
        reason=reason,
        allowed_bytes=allowed,
        # What the limit applies to: memory reserved by PyTorch on the device, or by the process on the host.
        peak_bytes=peaks.get(PEAK_RESERVED.name, peaks.get("memory/peak_private_bytes")),
        peaks=peaks,
        step_seconds=tuple(course.seconds[1:]),
        busy_share=busy,
        n_train=course.n_train,
        n_val=course.n_val,
    )
    return made, counted


def _context_bytes(device: Device) -> int:
    """Bytes of a CUDA device that its context and its libraries take; 0 if the driver does not report them, and on
    the CPU, where the limit does not include them."""
    uuid = device.uuid()
    if uuid is None:
        return 0
    square = torch.ones(1, 1, 8, 8, device=device.torch_device)
    torch.nn.functional.conv2d(square @ square, square[..., :3, :3])  # loads cuBLAS and cuDNN
    device.drain()
    del square
    device.empty_cache()
    return process_bytes(full_uuid(uuid), os.getpid()) or 0


def _import_targets(config: RunConfig) -> None:
    """Imports the user's code, so that its libraries do not count as memory of training."""
    for group in GROUPS:
        targets.resolve(getattr(config, group)["_target_"], KINDS[group], what=group, trust=config.trust)


def _train(
    config: RunConfig,
    device: Device,
    course: _Course,
    marks: Peaks,
    steps: int,
    seconds: float,
    clock: Callable[[], float],
) -> None:
    """Builds the parts as a run does, and trains; `course` gets the state and the seconds of each step."""
    course.phase.name = DATA
    data = assembly.build_data(config, device)
    course.n_train, course.n_val = length(data.train), length(data.val)
    total = MOST_STEPS * config.batch_size if device.settles() else ENDLESS
    # Not the config's plan: the data order continues over epochs, so a batch may be larger than the data.
    planned = Plan(total // config.batch_size, total, 0, warmup_examples=0.0, eval_every=total, log_every=total)
    session = assembly.assemble(config, data, planned=planned, phase=course.phase)
    if not device.settles():  # on the CPU memory counts from the start of the process
        marks.reset()  # assembly tries some passes, which are not training's
        course.retries_before = device.allocator_retries()
    course.state, step, upcoming = session.state, session.update, session.batches()
    costly, batches = costly_batch(session.state, upcoming), iter(upcoming)
    began = clock()
    course.phase.name = BATCH
    with session.state.precision.training():
        if costly is not None:
            step(costly())  # creates the optimizer's state
            step(costly())
        for number in range(MOST_STEPS if device.settles() else steps):
            if number >= steps and clock() - began > seconds:
                break
            course.seconds.append(_timed(1, step, batches, device, clock))
        if seconds and not device.settles():
            course.seconds[1:] = _warm_seconds(seconds, step, batches, device, clock)


def _timed(
    count: int, step: Update, batches: Iterator[MicroBatches], device: Device, clock: Callable[[], float]
) -> float:
    """Seconds per step, the mean of `count` steps."""
    began = clock()
    for _ in range(count):
        step(next(batches))
    device.drain()
    return (clock() - began) / count


def _warm_seconds(
    seconds: float, step: Update, batches: Iterator[MicroBatches], device: Device, clock: Callable[[], float]
) -> list[float]:
    """Seconds per step in windows of several steps, measured for `seconds` once the device is warm."""
    began = clock()
    while (spent := clock() - began) < WARM_UP_SECONDS:
        last = _timed(1, step, batches, device, clock)
    count = max(1, round(WINDOW_SECONDS / last)) if last else 1
    windows = [_timed(count, step, batches, device, clock)]
    while clock() - began < spent + seconds:
        windows.append(_timed(count, step, batches, device, clock))
    return windows


def _validate(course: _Course, size: int) -> None:
    """A validation pass of `size` examples, as many at once as fit next to weights, gradients and optimizer state:
    this size fails only if not even one example fits."""
    state = course.state
    assert state is not None
    course.phase.name = VALIDATION
    by_example(state, gather(state.val, torch.arange(min(size, length(state.val)))), size)


def _busy(config: RunConfig, course: _Course, size: int, clock: Callable[[], float]) -> float | None:
    """The share of time in which a GPU, warmed up by training, is busy; None if it cannot be measured, which does not
    change the outcome."""
    if course.state is None:
        return None
    try:
        with course.state.precision.training():
            return busy_share_of(course.state, size, clock)
    except Exception:
        _log(config)
        return None


def _accounted(config: RunConfig, course: _Course, size: int) -> Account | None:
    """The bytes by category; None if they cannot be counted, which does not change the outcome."""
    sizes = [passed for passed in SIZES if passed <= size]  # larger ones might not fit
    if course.state is None or len(sizes) < 2:
        return None
    try:
        return account(course.state, sizes)
    except Exception:
        _log(config)
        return None


def _judged(error: BaseException, config: RunConfig) -> tuple[Outcome, str]:
    status, reason = how_it_failed(error)
    reason = concealed(reason, to_dict(config))  # the user's code may quote its arguments
    if is_ambiguous(error):
        return Outcome.UNCLEAR, reason
    if status is RunStatus.OOM:
        return Outcome.OOM, reason
    if is_kernel_limit(error):
        return Outcome.KERNEL_LIMIT, reason
    _log(config)
    return Outcome.FAILED, reason


def _log(config: RunConfig) -> None:
    """Prints the traceback of the current error on stderr."""
    with contextlib.suppress(OSError):  # the log may be on a full disk
        sys.stderr.write(concealed(traceback.format_exc(), to_dict(config)))
