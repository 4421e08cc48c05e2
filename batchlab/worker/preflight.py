"""Checks a whole grid before its first point, in a child of the warm server: what fails here starts nothing."""

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
from batchlab.training.passes.contract import GRADIENT, METRICS, NO_DIRECTION, ONE_PER_TERM, one_example, refuse
from batchlab.training.passes.contract_passes import batch_norm_that_needs_two, training_pass, validation_pass
from batchlab.training.user_errors import in_the_users_words

TRIED = SPEED | MEMORY | PARTS  # what moves one of them is executed by other code; another seed or learning rate is not
PASSED = 3  # examples: BatchNorm takes no single one, and a shape is looked at once more with one example less
AUGMENTED = 8  # examples, to see whether the task's `augment` makes the same of them again


@dataclasses.dataclass(frozen=True)
class Parts:
    """What one distinct data and model of the grid was found to be."""

    n_train: int
    metrics: tuple[str, ...]  # what a target may name
    directed: tuple[str, ...]  # those of them whose better direction is known
    norm: str | None  # a BatchNorm layer, where the model cannot train on one example alone
    facts: Facts


def examine(grid: Sequence[RunConfig]) -> tuple[list[str], list[Facts]]:
    """What is wrong with the grid, one line each (none: everything may start), and what each point would be made with.

    Each distinct combination of what is `TRIED` is built once and passed one small batch; sizes are checked for every
    point.
    """
    found: dict[str, None] = {}  # in order, each once
    facts: list[Facts] = []
    nowhere = Facts(torch=metadata.version("torch"))
    built: dict[str, Parts | None] = {}
    # One process makes all points.
    allow_deterministic([config.device for config in grid if config.deterministic])
    for position, config in enumerate(grid, 1):
        kind = key(config, TRIED, without=MICRO_BATCHES)
        try:
            if kind not in built:
                built[kind] = None
                built[kind] = _build(config)
            parts = built[kind]
            facts.append(parts.facts if parts is not None else nowhere)
            if parts is not None:
                for problem in _misfits(config, parts):
                    found[problem] = None
        except BatchlabError as error:
            found[str(error)] = None
        except (Exception, SystemExit) as error:
            if not is_out_of_memory(error):  # what does not fit is a result, and the point's to record
                found[concealed(in_the_users_words(error), to_dict(config))] = None
            if is_broken_context(error):  # nothing can be built after it in this process
                if left := len(grid) - position:
                    found[f"{counted(left, 'point')} after it were not checked"] = None
                return list(found), facts + [nowhere] * (left + 1)
        if len(facts) < position:
            facts.append(nowhere)
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
    """BadRequest where the user's code has changed, for the whole process, what the config promises of it."""
    threads = torch.get_num_threads()
    if threads != config.threads:
        raise BadRequest(
            f"threads={config.threads} was asked for, and the code of the model or the data sets {threads} "
            f"(torch.set_num_threads): take that line out, or use threads={threads}"
        )
    if config.deterministic and not torch.are_deterministic_algorithms_enabled():
        raise BadRequest(
            "deterministic=true was asked for, and the code of the model or the data switches it off "
            "(torch.use_deterministic_algorithms): take that line out, or use deterministic=false"
        )


def _few_examples(train: Any, task: Task, seed: int, device: Device) -> Any:
    """As training would have them. Copies: what the user's code does to a batch must not come to the set."""
    if task.augment is None:
        return gather(train, torch.arange(min(PASSED, length(train))))
    few = augmented_twice(gather(train, torch.arange(min(AUGMENTED, length(train)))), task.augment, seed, device)
    return next(slices(few, PASSED))


def _misfits(config: RunConfig, parts: Parts) -> Iterator[str]:
    try:
        plan(config, parts.n_train)
    except BatchlabError as error:
        yield str(error)
        return  # its micro-batches may be too many to list
    if config.target is not None and config.target.metric not in parts.metrics:
        yield f"target.metric={config.target.metric} is not measured: this task gives {', '.join(parts.metrics)}"
    elif config.target is not None and config.target.metric not in parts.directed:
        name = config.target.metric.removeprefix("val/")
        yield NO_DIRECTION.worded(name=name).sentence
    if parts.norm is not None and min(config.micro_batch_sizes) == 1:
        yield one_example(config, parts.norm).sentence
