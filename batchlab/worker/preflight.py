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
from batchlab.training.data.batches import gather, length, slices
from batchlab.training.devices.broken_context import is_broken_context
from batchlab.training.devices.device import Device
from batchlab.training.devices.named import allow_deterministic
from batchlab.training.devices.out_of_memory import is_out_of_memory
from batchlab.training.devices.precision import Precision
from batchlab.training.losses import Losses
from batchlab.training.own_schedule import own_schedule
from batchlab.training.passes.contract import GRADIENT, METRICS, NO_DIRECTION, ONE_PER_TERM, one_example, refuse
from batchlab.training.passes.contract_passes import batch_norm_that_needs_two, training_pass, validation_pass
from batchlab.training.user_errors import message_and_place

TRIED = SPEED | MEMORY | PARTS  # options of these roles change the executed code; the seed and learning rate do not
PASSED = 3  # examples: BatchNorm needs two, and shapes are checked again with one less
AUGMENTED = 8  # examples, to check that the task's `augment` is reproducible


@dataclasses.dataclass(frozen=True)
class Parts:
    """The properties of one distinct combination of data and model."""

    n_train: int
    metrics: tuple[str, ...]  # that a target may name
    directed: tuple[str, ...]  # those with a known better direction
    norm: str | None  # a BatchNorm layer, if the model cannot train on a single example
    facts: Facts


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
                built[kind] = _build(config)
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


def _build(config: RunConfig) -> Parts:
    device = assembly.prepare_process(config)
    precision = Precision(config.precision, device)
    data = assembly.build_known_data(config, device)
    task, train, val = data.task, data.train, data.val
    model = assembly.build_model(config, task, device)
    precision.prepare(assembly.build_optimizer(config, model))
    small = dataclasses.replace(config, batch_size=1, accumulate=None, micro_batch_size=None, warmup=0.0)
    build_instruments(config, plan(small, length(train)), task)
    losses, few = Losses(model, task, precision), _few_examples(train, task, config.seed, device)
    seen = training_pass(losses, few).completed()
    refuse(ONE_PER_TERM, seen)
    refuse(GRADIENT, seen)
    measured = validation_pass(losses, gather(val, torch.arange(min(PASSED, length(val)))), config.eval_precision)
    refuse(METRICS, measured)
    _refuse_other_settings(config)
    directed = (VALIDATION_LOSS.name, *(OF_VALIDATION + name for name in task.higher_is_better))
    facts = Facts(
        data_fingerprint=data.fingerprint,
        torch=metadata.version("torch"),
        device_name=device.name() or environment().get("cpu"),
    )
    metrics = (VALIDATION_LOSS.name, *(OF_VALIDATION + name for name in measured.metrics))
    return Parts(length(train), metrics, directed, batch_norm_that_needs_two(losses, few), facts)


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


def _few_examples(train: Any, task: Task, seed: int, device: Device) -> Any:
    """Examples as in training. Copies, so that changes by the user's code do not affect the data set."""
    if task.augment is None:
        return gather(train, torch.arange(min(PASSED, length(train))))
    few = augmented_twice(gather(train, torch.arange(min(AUGMENTED, length(train)))), task.augment, seed, device)
    return next(slices(few, PASSED))


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
    if parts.norm is not None and min(config.micro_batch_sizes) == 1:
        yield one_example(config, parts.norm).sentence
