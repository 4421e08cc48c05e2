"""The budget of a run, and the target at which it counts as having learnt the task."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from batchlab.config.values import is_finite, is_plain, shown
from batchlab.errors import BadRequest
from batchlab.records.quantities import OF_VALIDATION

BUDGET_UNITS = ("epochs", "examples", "steps")
WHOLE = ("examples", "steps")  # units that are counted in whole numbers


@dataclass(frozen=True)
class Budget:
    """How long a run trains; converted to examples once the size of the data is known."""

    unit: str  # one of BUDGET_UNITS
    amount: float

    def examples(self, n_train: int, batch_size: int) -> int:
        """Training examples this budget allows, for data of `n_train` examples."""
        per_unit = {"epochs": n_train, "examples": 1, "steps": batch_size}[self.unit]
        # As typed, not as stored: 0.29 epochs of 100 examples are 29, but in floating point 28.999...
        return math.floor(Fraction(str(self.amount)) * per_unit)

    def __str__(self) -> str:
        return f"{self.unit}={str(self.amount).removesuffix('.0')}"


@dataclass(frozen=True)
class Target:
    """A value of a validation metric that counts as having learnt it."""

    metric: str  # val/loss or val/<metric>
    value: float


def budget_of(given: dict[str, Any]) -> Budget:
    """The budget that plain values request, whose keys are removed from `given`; BadRequest for two or none."""
    default = given.pop("default_epochs", None)
    requested = {unit: given.pop(unit, None) for unit in BUDGET_UNITS}
    requested = {unit: amount for unit, amount in requested.items() if amount is not None}
    if len(requested) > 1:
        both = " and ".join(f"{unit}={shown(amount)}" for unit, amount in requested.items())
        raise BadRequest(
            f"{both} set the length of training more than once: give only one of {', '.join(BUDGET_UNITS)}"
        )
    if not requested or default is not None:  # checked even where it has no effect: no option is ignored silently
        requested = {"default_epochs": default} | requested
    for name, amount in requested.items():
        whole = name in WHOLE
        if not is_finite(amount) or amount <= 0 or (whole and not isinstance(amount, int)):
            kind = "an integer" if whole else "a number"
            raise BadRequest(f"{name}={shown(amount)} is invalid: it must be {kind} above 0")
    # Epochs are always a float, so that epochs=2 and epochs=2.0 are one run.
    return Budget(name, amount) if whole else Budget("epochs", float(amount))


def target_of(value: Any) -> Target | None:
    """The target that plain values request; None where its value is null. BadRequest for anything else."""
    if not isinstance(value, Mapping):
        metric = f"target.metric={value} " if is_plain(value) and value.startswith(OF_VALIDATION) else ""
        wanted = f"{value}" if is_finite(value) else "0.15"
        raise BadRequest(
            f"target={shown(value)} is invalid: a target has a metric and a value; write {metric}target.value={wanted}"
        )
    given = dict(value)
    wanted = given.pop("value", None)
    metric = given.pop("metric", None)
    if given:
        raise BadRequest(f"unknown key 'target.{next(iter(given))}': a target has the keys metric and value")
    if wanted is not None and not is_finite(wanted):
        raise BadRequest(f"target.value={shown(wanted)} is invalid: it must be a number, or null for no target")
    named = is_plain(metric) and metric.startswith(OF_VALIDATION) and metric != OF_VALIDATION
    if not named and (metric, wanted) != (None, None):
        raise BadRequest(f"target.metric={shown(metric)} is invalid: it must be val/loss or another val/<metric>")
    return None if wanted is None else Target(metric=metric, value=float(wanted))


def plain_target(target: Target | None) -> dict[str, str | float | None]:
    """The inverse of `target_of`."""
    return {"metric": target.metric, "value": target.value} if target else {"value": None}
