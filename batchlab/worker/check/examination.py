"""`batchlab check`, in the process that has the model: runs the trials in order."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from batchlab.config import RunConfig, target_name
from batchlab.errors import BadRequest
from batchlab.training import assembly
from batchlab.training.data.batches import slices
from batchlab.training.devices.precision import Precision
from batchlab.training.hooks import begin_epoch
from batchlab.training.losses import Losses
from batchlab.training.passes.contract_passes import training_pass
from batchlab.training.passes.reduction import with_reduction
from batchlab.training.user_errors import message_and_place
from batchlab.worker.check import behaviour, fitting, learning, objective, optimizing, pace
from batchlab.worker.check.data_sample import Sample, sampled
from batchlab.worker.check.findings import (
    SECONDS,
    Checkup,
    Doing,
    Finding,
    Rest,
    collected,
    is_wrong,
    ok,
    refused,
    wrong,
)
from batchlab.worker.check.passes import Passes

EXAMPLES = 8  # that are passed together and one by one
LARGER = 33  # that are passed together, to compare the count and the loss of unequal parts


@dataclass(frozen=True)
class Trial:
    """One trial, and what it takes."""

    name: str
    run: Callable[[Passes, Sample, RunConfig], Iterable[Finding]]
    passes: int = 0  # forward and backward, of EXAMPLES examples, about
    needs: tuple[str, ...] = ()  # the trials that must have found nothing wrong
    works: bool = True  # whether it needs a model and a loss that can process a batch


TRIALS = (
    Trial("dtype", lambda passes, _, __: fitting.dtypes(passes), works=False),
    Trial("shapes", lambda passes, _, __: fitting.forward_and_loss(passes), needs=("dtype",), works=False),
    Trial("finite", lambda passes, sample, _: fitting.finite(passes, sample)),
    Trial("input", lambda passes, _, __: behaviour.in_place(passes), 2),
    Trial("random", lambda passes, _, __: behaviour.randomness(passes), 5),
    Trial("alone", lambda passes, _, __: behaviour.independence(passes), 4, ("random", "finite")),
    Trial("terms", lambda passes, _, __: behaviour.terms(passes), 3, ("random", "finite", "alone")),
    Trial("objective", lambda passes, _, __: objective.objective(passes), 3, ("random", "finite")),
    Trial("BatchNorm", lambda passes, _, config: behaviour.batch_norm(passes, config), 1),
    Trial("metrics", lambda passes, sample, _: fitting.metrics(passes, sample), 1),
    Trial("halves", lambda passes, sample, _: fitting.halves(passes, sample), 6, ("metrics", "random", "alone")),
    Trial("target", lambda passes, sample, config: objective.target(passes, sample, config), 3, ("metrics", "random")),
    Trial("gradient", lambda passes, _, __: behaviour.gradient(passes), needs=("finite",)),
    Trial("speed", lambda passes, sample, _: pace.speed(passes, sample), 2),
    Trial("optimizer", lambda passes, _, config: optimizing.optimizer(passes, config), 0),
    Trial(  # last: it changes the weights
        "learns",
        lambda passes, sample, config: learning.learning(passes, sample, config),
        5,
        ("gradient", "optimizer", "finite"),
    ),
)


def examine(config: RunConfig) -> Checkup:
    """Tries the data and then the model of the config, on a few examples, with its initial weights, in fp32."""
    return collected(trials(config))


def trials(config: RunConfig) -> Iterator[Finding | Rest | Doing]:
    """The findings of `examine` as each is known, what is done before each, and then the trials that were skipped."""
    start = time.monotonic()
    names = [trial.name for trial in TRIALS]
    device = assembly.prepare_process(config)
    yield Doing(f"building the data ({config.data['_target_']}) twice, and reading some examples")
    task, sample, found = sampled(config, device)
    yield from found
    if task is None or sample is None:
        yield Rest(("model", *names))
        return
    yield Doing(f"building the model ({config.model['_target_']})")
    try:
        begin_epoch(task, config.seed)
        assembly.prepare_loss(config, task, device)
        model = assembly.build_model(config, task, device)
    except (Exception, SystemExit) as error:
        advice = (
            "it is called with its keys of the config and those of the Task's model_args that it accepts, and must "
            "return a module with trainable weights"
        )
        yield wrong("model", message_and_place(error), advice)
        yield Rest(tuple(names))
        return
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    yield ok("model", f"{target_name(config.model)}, {parameters:,} trainable parameters, on {device}")
    precision = Precision("fp32", device)
    yield Doing("passing a few examples forward and backward for the first time")
    declared, task = task.reduction, with_reduction(task, model, sample.train, precision)
    losses, batch = Losses(model, task, precision), next(slices(sample.train, EXAMPLES))
    before = time.monotonic()
    seen = training_pass(losses, batch)
    seconds = time.monotonic() - before
    passes = Passes(losses, batch, seen, next(slices(sample.train, LARGER)), declared, seconds)
    failed: set[str] = set()
    untried, slow = [], []
    for trial in TRIALS:
        if failed & {*trial.needs} or (trial.works and not seen.works):
            untried.append(trial.name)
        elif time.monotonic() - start + trial.passes * seconds > SECONDS:
            slow.append(trial.name)
        else:
            yield Doing(f"trying '{trial.name}'")
            findings = _findings(trial, passes, sample, config)
            yield from findings
            if is_wrong(findings):
                failed.add(trial.name)
    yield Rest(tuple(untried), tuple(slow), seconds, losses.task.reduction == "batch")


def _findings(trial: Trial, passes: Passes, sample: Sample, config: RunConfig) -> list[Finding]:
    """The findings of the trial; if the user's code fails, its error."""
    try:
        return list(trial.run(passes, sample, config))
    except BadRequest as error:
        return [refused(trial.name, error)]
    except (Exception, SystemExit) as error:
        return [wrong(trial.name, message_and_place(error), "check the line that it names")]
