"""The results of a run's measurements: last and best values, and when the target was reached."""

import math
from collections.abc import Iterable
from typing import Any

from batchlab.config import Target
from batchlab.records import Measurement
from batchlab.records.declared import Quantities
from batchlab.records.quantities import STEPS_SKIPPED
from batchlab.records.quantity import Quantity
from batchlab.science.scaling.crossings import reaches


class Ledger:
    """Receives every measurement once; `declared` holds the quantities that the run's record declares."""

    def __init__(
        self,
        *,
        declared: Iterable[Quantity],
        target: Target | None,
        resolution: int,
    ) -> None:
        self.final: dict[str, float] = {}
        self.best: dict[str, dict[str, float]] = {}
        self._quantities = Quantities(declared)
        self._target = target
        self._resolution = resolution  # examples between two checks of the target's metric
        self._reached: Measurement | None = None

    def take(self, measurement: Measurement) -> None:
        """Adds a measurement."""
        name, value = measurement.name, measurement.value
        self.final[name] = value
        quantity = self._quantities[name]
        if quantity.keep_best and quantity.higher_is_better is not None and not math.isnan(value):
            best = self.best.get(name)
            # only if strictly better, so that the first of equal values is kept; nan is never best
            if best is None or (value > best["value"] if quantity.higher_is_better else value < best["value"]):
                self.best[name] = {"value": value, "examples": measurement.examples}
        if self._reached is None and self._is_target(measurement):
            self._reached = measurement

    @property
    def target_reached(self) -> bool:
        """Whether the target's metric has been at or beyond its value."""
        return self._reached is not None

    def fields(self) -> dict[str, Any]:
        """The fields of the run's record that come from the measurements."""
        return {
            "steps_skipped": int(self.final.get(STEPS_SKIPPED.name, 0)),
            "final": dict(self.final),
            "best": {name: dict(best) for name, best in self.best.items()},
            "target": self.target_record(),
        }

    def target_record(self) -> dict[str, str | float | None] | None:
        """The field `target` of the run's record; None if the run has no target."""
        if self._target is None:
            return None
        at = self._reached
        return {
            "metric": self._target.metric,
            "value": self._target.value,
            "reached": at is not None,
            "step": at.step if at else None,
            "examples": at.examples if at else None,
            "train_seconds": at.train_seconds if at else None,
            "resolution": self._resolution,
        }

    def _is_target(self, measurement: Measurement) -> bool:
        target, higher = self._target, self._quantities[measurement.name].higher_is_better is not False
        return (
            target is not None
            and measurement.name == target.metric
            and reaches(measurement.value, target.value, higher_is_better=higher)
        )
