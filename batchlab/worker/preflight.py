"""Checks a whole grid before its first point, in a child of the warm server; if it fails, nothing is started."""

import dataclasses
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

import torch

from batchlab.config import RunConfig, key, to_dict
from batchlab.config.option_row import MEMORY, PARTS, SPEED
from batchlab.config.options import MICRO_BATCHES
from batchlab.config.plan import plan
from batchlab.errors import BadRequest, BatchlabError
from batchlab.instruments.panel import build_instruments
from batchlab.printable import counted
from batchlab.recording.environment import environment
from batchlab.recording.masking import concealed
from batchlab.records import Facts
from batchlab.records.quantities import OF_VALIDATION, VALIDATION_LOSS
from batchlab.task import Task
from batchlab.training import assembly
from batchlab.training.data.augment_trial import augmented_twice
from batchlab.training.data.batches import augmented, gather, length, slices
from batchlab.training.data.fingerprints import weights_fingerprint
from batchlab.training.data.loaders.loaded import Loaded, misfit
from batchlab.training.devices.broken_context import is_broken_context
from batchlab.training.devices.device import Device
from batchlab.training.devices.named import allow_deterministic
from batchlab.training.devices.out_of_memory import is_out_of_memory
from batchlab.training.devices.precision import Precision
from batchlab.training.hooks import begin_epoch, evaluated
from batchlab.training.losses import Losses
from batchlab.training.passes.contract import GRADIENT, METRICS, NO_DIRECTION, one_example, refuse
from batchlab.training.passes.contract_of_loss import ONE_PER_TERM
from batchlab.training.passes.contract_passes import (
    TrainingPass,
    batch_norm_that_needs_two,
    training_pass,
    validation_pass,
)
from batchlab.training.passes.reduction import changed_objective, with_reduction
from batchlab.training.phase import OPTIMIZER, Phase
from batchlab.training.updates.closures import refuse_unless_possible
from batchlab.training.updates.eager import Eager
from batchlab.training.updates.optimizer import build_optimizer, explaining_its_errors
from batchlab.training.updates.own_schedule import own_schedule
from batchlab.training.user_errors import message_and_place
from batchlab.worker.equal_builds import built_twice

TRIED = SPEED | MEMORY | PARTS  # options of these roles change the executed code; the seed and learning rate do not
PASSED = 3  # examples: BatchNorm needs two, and shapes are checked again with one less
MORE = 64  # examples, if those have no terms
AUGMENTED = 8  # examples, to check that the task's `augment` is reproducible


@dataclasses.dataclass(frozen=True)
class Parts:
    """The properties of one distinct combination of data and model."""

    n_train: int  # examples of an epoch
    metrics: tuple[str, ...]  # that a target may name
    directed: tuple[str, ...]  # those with a known better direction
    norm: str | None  # a BatchNorm layer, if the model cannot train on a single example
    with_closure: torch.optim.Optimizer | None  # the optimizer, if it needs a closure
    facts: Facts
    task: Task  # its reduction decided
    own_batches: bool  # whether the user's loader makes them


def examine(grid: Sequence[RunConfig]) -> tuple[list[str], list[Facts]]:
    """The problems of the grid, one line each (empty: everything may start), and the facts about each point.

    Each distinct combination of the options in `TRIED` is built once and run on one small batch; sizes are checked
    for every point.
    """
    found: dict[str, None] = {}  # in order, each once
    facts: list[Facts] = []
    unknown = Facts(torch=metadata.version("torch"))
    built: dict[str, Parts | None] = {}
    # One process builds all points.
    allow_deterministic([config.device for config in grid if config.deterministic])
    for position, config in enumerate(grid, 1):
        kind = key(config, TRIED, without=MICRO_BATCHES)
        try:
            if kind not in built:
                built[kind] = None
                built[kind] = _build(config, _other_seed(config, grid))
            parts = built[kind]
            facts.append(parts.facts if parts is not None else unknown)
            if parts is not None:
                for problem in _misfits(config, parts):
                    found[problem] = None
        except BatchlabError as error:
            found[str(error)] = None
        except (Exception, SystemExit) as error:
            if not is_out_of_memory(error):  # running out of memory is a result, which the point records
                found[concealed(message_and_place(error), to_dict(config))] = None
            if is_broken_context(error):  # nothing can be built after it in this process
                if left := len(grid) - position:
                    found[f"{counted(left, 'later point')} not checked"] = None
                return list(found), facts + [unknown] * (left + 1)
        if len(facts) < position:
            facts.append(unknown)
    return list(found), facts


def _other_seed(config: RunConfig, grid: Sequence[RunConfig]) -> int | None:
    """Another seed of the grid for the same model."""
    seeds = (other.seed for other in grid if other.model == config.model and other.data == config.data)
    return next((seed for seed in seeds if seed != config.seed), None)


def _build(config: RunConfig, other_seed: int | None) -> Parts:
    device = assembly.prepare_process(config)
    precision = Precision(config.precision, device)
    data = built_twice(config, device)
    task, train, val = data.task, data.train, data.val
    order = assembly.data_order(task, length(train), config.seed)
    if order is not None:
        order.refuse_unless_repeatable()
    epoch = length(train) if order is None else order.length
    begin_epoch(task, config.seed)
    assembly.prepare_loss(config, task, device)
    with_other_seed = None
    if other_seed is not None:
        other = dataclasses.replace(config, seed=other_seed)
        with_other_seed = weights_fingerprint(assembly.build_model(other, task, device))
    model = assembly.build_model(config, task, device)
    same_weights = with_other_seed == weights_fingerprint(model) if with_other_seed is not None else False
    optimizer = build_optimizer(config, model, task)
    precision.prepare(optimizer)
    small = dataclasses.replace(config, batch_size=1, accumulate=None, micro_batch_size=None, warmup=0.0)
    task = with_reduction(task, model, train, precision)
    build_instruments(config, plan(small, epoch), task)
    losses, few = Losses(model, task, precision), _few_examples(train, task, config.seed, device, PASSED)
    seen = training_pass(losses, few).completed()
    if not seen.count:  # then the gradient shows nothing
        seen = training_pass(losses, _few_examples(train, task, config.seed, device, MORE)).completed()
    refuse(ONE_PER_TERM, seen)
    refuse(GRADIENT, seen)
    validated = Losses(evaluated(task, model), task, precision)
    measured = validation_pass(validated, gather(val, torch.arange(min(PASSED, length(val)))), config.eval_precision)
    refuse(METRICS, measured)
    norm = batch_norm_that_needs_two(losses, few if task.collate is None else gather(train, torch.arange(1)))
    needs_closure = _step(config, seen, optimizer)  # changes the weights
    _refuse_other_settings(config)
    directed = (VALIDATION_LOSS.name, *(OF_VALIDATION + name for name in task.higher_is_better))
    facts = Facts(
        data_fingerprint=data.fingerprint,
        torch=metadata.version("torch"),
        device_name=device.name() or environment().get("cpu"),
        same_weights=same_weights,
    )
    metrics = (VALIDATION_LOSS.name, *(OF_VALIDATION + name for name in measured.names))
    own_batches = isinstance(train, Loaded)
    return Parts(epoch, metrics, directed, norm, optimizer if needs_closure else None, facts, task, own_batches)


def _step(config: RunConfig, seen: TrainingPass, optimizer: torch.optim.Optimizer) -> bool:
    """Makes the optimizer's step after the pass `seen`, of a model that is discarded; returns whether the optimizer
    needs a closure. BadRequest if it raises, or needs a closure that it cannot get."""
    losses, phase = seen.losses, Phase()
    update = Eager(losses, optimizer, config.clip_norm, phase=phase)
    needs_closure = update.needs_closure()
    with explaining_its_errors(config, losses.trained, phase):
        if needs_closure:
            refuse_unless_possible(optimizer, accumulate=1, precision=config.precision)
            update((seen.batch,))
        else:
            phase.name = OPTIMIZER
            for name, p in losses.trained.named_parameters():
                p.grad = seen.gradients.get(name)
            losses.precision.update(optimizer, update.parameters, config.clip_norm)
    if losses.task.after_step is not None:
        losses.task.after_step(losses.model, 1)
    return needs_closure


def _refuse_other_settings(config: RunConfig) -> None:
    """BadRequest if the user's code has changed process-wide settings that the config specifies."""
    threads = torch.get_num_threads()
    if threads != config.threads:
        raise BadRequest(
            f"threads={config.threads} was requested, but the code of the model or the data sets {threads} "
            f"(torch.set_num_threads): remove that call, or use threads={threads}"
        )
    if config.deterministic and not torch.are_deterministic_algorithms_enabled():
        raise BadRequest(
            "deterministic=true was requested, but the code of the model or the data switches it off "
            "(torch.use_deterministic_algorithms): remove that call, or use deterministic=false"
        )


def _few_examples(train: Any, task: Task, seed: int, device: Device, passed: int) -> Any:
    """Examples as in training. Copies, so that changes by the user's code do not affect the data set."""
    if task.augment is None:
        return gather(train, torch.arange(min(passed, length(train))))
    few = gather(train, torch.arange(min(max(AUGMENTED, passed), length(train))))
    made = augmented_twice(few, task.augment, seed, device)
    if task.collate is not None:  # then each batch is augmented by itself
        return augmented(gather(train, torch.arange(min(passed, length(train)))), task.augment, seed, 0)
    return next(slices(made, passed))


def _misfits(config: RunConfig, parts: Parts) -> Iterator[str]:
    try:
        plan(config, parts.n_train)
        own_schedule(config)
    except BatchlabError as error:
        yield str(error)
        return  # there may be too many micro-batches to list
    if config.target is not None and config.target.metric not in parts.metrics:
        yield f"target.metric={config.target.metric} is not measured: use one of {', '.join(parts.metrics)}"
    elif config.target is not None and config.target.metric not in parts.directed:
        name = config.target.metric.removeprefix("val/")
        yield NO_DIRECTION.worded(name=name).sentence
    if parts.with_closure is not None:
        try:
            micro_batches = len(config.micro_batch_sizes)
            refuse_unless_possible(parts.with_closure, accumulate=micro_batches, precision=config.precision)
        except BadRequest as error:
            yield str(error)
    if parts.norm is not None and min(config.micro_batch_sizes) == 1:
        yield one_example(config, parts.norm).sentence
    if (why := changed_objective(config, parts.task)) is not None:
        yield why
    if parts.own_batches and (why := misfit(config.micro_batch_sizes)) is not None:
        yield why
