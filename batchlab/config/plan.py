"""The counts of a run once the size of the data is known: all in examples."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from batchlab.config.options import OF_SCHEDULES
from batchlab.config.run import RunConfig
from batchlab.config.values import is_finite, shown
from batchlab.errors import BadRequest
from batchlab.printable import counted
from batchlab.science.scaling import lr_scaling
from batchlab.science.scaling.schedules import Curve, after_warmup, check_warmup, curve_of, learning_rate


@dataclass(frozen=True)
class Plan:
    """The counts of one run. Steps are whole: what is left of the budget after them is `remainder`."""

    steps: int  # optimizer updates, at least 1
    examples: int  # steps x batch_size: what is trained on
    remainder: int  # examples of the budget that do not fill a whole step
    warmup_examples: float
    eval_every: int  # examples between validations
    log_every: int  # examples per window of the training loss


def plan(config: RunConfig, n_train: int) -> Plan:
    """The run's counts for data of `n_train` examples; BadRequest for a batch larger than the data or the budget."""
    if config.batch_size > n_train:
        raise BadRequest(
            f"batch_size={config.batch_size} is larger than the training set of {n_train} examples: "
            f"use at most {n_train}"
        )
    budget = config.budget.examples(n_train, config.batch_size)
    if budget < config.batch_size:
        amount = "" if config.budget.unit == "examples" else f", {counted(budget, 'example')},"
        raise BadRequest(
            f"{config.budget}{amount} is less than one batch (batch_size={config.batch_size}): "
            f"use at least examples={config.batch_size}, or a smaller batch_size"
        )
    if budget > 2**53:  # beyond, progress through the budget is no longer exact in floating point
        raise BadRequest(f"{config.budget} is a budget of more than 2**53 examples: give a smaller one")
    steps = budget // config.batch_size
    examples = steps * config.batch_size
    warmup = config.warmup * budget if config.warmup < 1 else config.warmup
    if warmup > budget:
        raise BadRequest(
            f"warmup={str(config.warmup).removesuffix('.0')} examples is longer than the budget of {budget} examples: "
            f"use at most {budget}, or a fraction of the budget below 1"
        )
    if isinstance(config.schedule, str):
        check_warmup(config.schedule, schedule_options(config), warmup / budget)
    return Plan(
        steps=steps,
        examples=examples,
        remainder=budget - examples,
        warmup_examples=warmup,
        eval_every=config.eval_every or max(1, n_train // 4),
        log_every=config.log_every or max(1, budget // 200),
    )


def scaled(config: RunConfig, takes: Mapping[str, object]) -> lr_scaling.Scaled:
    """The peak learning rate, betas and eps that the scaling rule gives for this batch size.

    `takes` holds the defaults of the optimizer's signature, for betas and eps that the config does not give.
    """
    betas, eps = (config.optimizer.get(name, takes.get(name)) for name in ("betas", "eps"))
    if "betas" in config.optimizer and not _are_numbers(betas):
        raise BadRequest(
            f"optimizer.betas={shown(betas)} is invalid: write a list of numbers, such as optimizer.betas=[0.9,0.999]"
        )
    base = lr_scaling.Scaled(
        lr=config.lr, betas=tuple(betas) if _are_numbers(betas) else None, eps=eps if is_finite(eps) else None
    )
    return lr_scaling.scaled(
        config.lr_scaling,
        base,
        batch_size=config.batch_size,
        reference_batch_size=config.reference_batch_size,
        noise_scale=config.noise_scale,
    )


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(is_finite, value))


def schedule_options(config: RunConfig) -> dict[str, Any]:
    """The options of the built-in schedules, by their names without `schedule_`."""
    return {name: getattr(config, row.name) for name, row in OF_SCHEDULES.items()}


def learning_rates(config: RunConfig, planned: Plan, peak: float, own: Curve | None = None) -> Callable[[int], float]:
    """The learning rate of the step that starts after a number of examples; `own` is the user's own schedule, if any.

    Taken at the middle of its batch: at its start, large batches would get a larger mean learning rate.
    """
    budget = planned.examples + planned.remainder
    warmup = planned.warmup_examples / budget
    if own is not None:
        curve = after_warmup(own, warmup)
    else:
        curve = curve_of(str(config.schedule), schedule_options(config), warmup)
    start = 0.0 if config.warmup_from == "zero" else min(config.lr, peak)
    half = config.batch_size / 2

    def of_step(examples_seen: int) -> float:
        return learning_rate((examples_seen + half) / budget, peak=peak, warmup=warmup, start=start, curve=curve)

    return of_step
