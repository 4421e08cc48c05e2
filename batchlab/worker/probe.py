"""One probe, in a process of its own: whether a micro-batch of this size trains here, and what it takes."""

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
from batchlab.training.devices.device import Device
from batchlab.training.devices.out_of_memory import how_it_failed, is_ambiguous, is_kernel_limit
from batchlab.training.devices.process_memory import give_freed_pages_back
from batchlab.training.first_error import finally_do
from batchlab.training.passes.evaluation import by_example
from batchlab.training.phase import BATCH, DATA, VALIDATION, Phase
from batchlab.training.state import RunState
from batchlab.training.updates.update import Update

MOST_STEPS = 21  # on the CPU, where each is timed for itself
WARM_UP_SECONDS = 1.0  # of steps before a GPU is timed: it leaves its idle clock only under load
WINDOW_SECONDS = 0.05  # that a GPU's steps are timed together, or waiting for it would be most of what is timed
ENDLESS = 2**40  # examples
KINDS: dict[str, type] = {"data": Task, "model": nn.Module, "optimizer": torch.optim.Optimizer}  # of what a group makes


@dataclass
class _Course:
    """How far a probe is, and what is known of it: it may end anywhere."""

    phase: Phase = field(default_factory=Phase)
    seconds: list[float] = field(default_factory=list)
    n_train: int | None = None
    n_val: int | None = None
    state: RunState | None = None


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
    """Trains `steps` steps of micro-batches of `size` examples, as many to a step as `config` has, and validates once.

    More steps, where they are quick, until `seconds` have passed; a GPU is warmed up before these. With `allowed` bytes
    of memory beyond the process with its libraries loaded; None: what is free on the CUDA device, less the share
    `headroom`. Data, weights, gradients and the optimizer's state count. The bytes are training's; a validation that
    does not fit is halved, as in a run. `exact`: host memory that is freed counts no more; otherwise it is kept, as a
    run keeps it. Data of fewer examples is repeated. Never raises: what went wrong is the probe's outcome. The bytes by
    category come with a probe of 4 examples or more that ran.
    """
    accumulate = len(config.micro_batch_sizes)
    # No rule of the rate: it moves no memory, and some rules refuse a size so far from the reference.
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
            allowed -= (taken := _taken_beside_tensors(device))
            if allowed <= 0:
                raise BadRequest(
                    f"CUDA and its libraries take {taken / 2**20:,.0f} MiB of {device}, and with memory_limit nothing "
                    "is left for training: give more"
                )
        with device.limited(allowed):
            with finally_do(lambda: peaks.update(marks.read())):
                _train(config, device, course, steps, seconds, clock)
            retries = device.allocator_retries()  # of training: a validation that is halved makes some of its own
            _validate(course, min(size, config.eval_batch_size))
        busy, counted = _busy(config, course, size, clock), _accounted(config, course, size)
    except (Exception, SystemExit) as error:
        outcome, reason = _judged(error, config)
    if outcome is Outcome.FITS and retries:
        outcome, reason = Outcome.RETRIES, f"it ran when the allocator had emptied its cache ({retries} times)"
    made = Probe(
        size=size,
        outcome=outcome,
        accumulate=accumulate,
        phase="" if outcome in (Outcome.FITS, Outcome.RETRIES) else course.phase.name,
        reason=reason,
        allowed_bytes=allowed,
        # What the limit is about: what PyTorch took from the device, or the process from the host.
        peak_bytes=peaks.get(PEAK_RESERVED.name, peaks.get("memory/peak_private_bytes")),
        peaks=peaks,
        step_seconds=tuple(course.seconds[1:]),
        busy_share=busy,
        n_train=course.n_train,
        n_val=course.n_val,
    )
    return made, counted


def _taken_beside_tensors(device: Device) -> int:
    """Bytes of a CUDA device that its context and its libraries take, on a small card as on a large one; 0 where the
    driver does not say, and on the CPU, where a limit is of what comes on top."""
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
    """So that the libraries of the user's code count as loaded."""
    for group in GROUPS:
        targets.resolve(getattr(config, group)["_target_"], KINDS[group], what=group, trust=config.trust)


def _train(
    config: RunConfig, device: Device, course: _Course, steps: int, seconds: float, clock: Callable[[], float]
) -> None:
    """Builds the parts as a run does, and trains; `course` is left with the state and the seconds of each step."""
    course.phase.name = DATA
    data = assembly.build_data(config, device)
    course.n_train, course.n_val = length(data.train), length(data.val)
    total = MOST_STEPS * config.batch_size if device.settles() else ENDLESS
    # Not the config's plan: the order of examples goes on from epoch to epoch, so a batch may be larger than the data.
    planned = Plan(total // config.batch_size, total, 0, warmup_examples=0.0, eval_every=total, log_every=total)
    session = assembly.assemble(config, data, planned=planned, phase=course.phase)
    course.state, step, batches = session.state, session.update, iter(session.batches())
    began = clock()
    course.phase.name = BATCH
    with session.state.precision.training():
        for number in range(MOST_STEPS if device.settles() else steps):
            if number >= steps and clock() - began > seconds:
                break
            course.seconds.append(_timed(1, step, batches, device, clock))
        if seconds and not device.settles():
            course.seconds[1:] = _warm_seconds(seconds, step, batches, device, clock)


def _timed(
    count: int, step: Update, batches: Iterator[MicroBatches], device: Device, clock: Callable[[], float]
) -> float:
    """Seconds that each of `count` steps takes."""
    began = clock()
    for _ in range(count):
        step(next(batches))
    device.drain()
    return (clock() - began) / count


def _warm_seconds(
    seconds: float, step: Update, batches: Iterator[MicroBatches], device: Device, clock: Callable[[], float]
) -> list[float]:
    """Seconds per step, of windows of several steps, for as long as `seconds`, once the device is warm."""
    began = clock()
    while (spent := clock() - began) < WARM_UP_SECONDS:
        last = _timed(1, step, batches, device, clock)
    count = max(1, round(WINDOW_SECONDS / last)) if last else 1
    windows = [_timed(count, step, batches, device, clock)]
    while clock() - began < spent + seconds:
        windows.append(_timed(count, step, batches, device, clock))
    return windows


def _validate(course: _Course, size: int) -> None:
    """A validation pass of `size` examples, as many at once as fit beside the weights, gradients and optimizer that
    training has: only where not even one does, nothing of this size can be run."""
    state = course.state
    assert state is not None
    course.phase.name = VALIDATION
    by_example(state, gather(state.val, torch.arange(min(size, length(state.val)))), size)


def _busy(config: RunConfig, course: _Course, size: int, clock: Callable[[], float]) -> float | None:
    """The share of time that a GPU is busy, which training has warmed up; None where it cannot be measured, which takes
    nothing from the outcome."""
    if course.state is None:
        return None
    try:
        with course.state.precision.training():
            return busy_share_of(course.state, size, clock)
    except Exception:
        _log(config)
        return None


def _accounted(config: RunConfig, course: _Course, size: int) -> Account | None:
    """The bytes by category, of what ran; None where they cannot be counted, which takes nothing from the outcome."""
    sizes = [passed for passed in SIZES if passed <= size]  # more might not fit
    if course.state is None or len(sizes) < 2:
        return None
    try:
        return account(course.state, sizes)
    except Exception:
        _log(config)
        return None


def _judged(error: BaseException, config: RunConfig) -> tuple[Outcome, str]:
    status, reason = how_it_failed(error)
    reason = concealed(reason, to_dict(config))  # the user's code may quote what it was given
    if is_ambiguous(error):
        return Outcome.UNCLEAR, reason
    if status is RunStatus.OOM:
        return Outcome.OOM, reason
    if is_kernel_limit(error):
        return Outcome.KERNEL_LIMIT, reason
    _log(config)
    return Outcome.FAILED, reason


def _log(config: RunConfig) -> None:
    """The traceback of the error that is being handled, on stderr."""
    with contextlib.suppress(OSError):  # the log may lie on a full disk
        sys.stderr.write(concealed(traceback.format_exc(), to_dict(config)))
