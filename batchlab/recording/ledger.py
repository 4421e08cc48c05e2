"""What a run's measurements come to: last and best values, and when the target was reached."""

import math
from collections.abc import Mapping
from typing import Any

from batchlab.config import Target
from batchlab.records import Measurement
from batchlab.science.crossings import reaches


class Ledger:
    """Takes every measurement once and keeps the sums."""

    def __init__(
        self,
        *,
        higher_is_better: Mapping[str, bool],
        target: Target | None,
        resolution: int,
    ) -> None:
        self.final: dict[str, float] = {}
        self.best: dict[str, dict[str, float]] = {}
        self._higher_is_better = higher_is_better
        self._target = target
        self._resolution = resolution  # examples between two looks at the target's metric
        self._reached: Measurement | None = None

    def take(self, measurement: Measurement) -> None:
        """Counts `measurement` in."""
        name, value = measurement.name, measurement.value
        self.final[name] = value
        if self._is_directed(name) and not math.isnan(value):
            best = self.best.get(name)
            # strictly better only, so that the first of equals is kept; a nan is never best
            if best is None or self._better(name, value, best["value"]):
                self.best[name] = {"value": value, "examples": measurement.examples}
        if self._reached is None and self._is_target(measurement):
            self._reached = measurement

    @property
    def target_reached(self) -> bool:
        """Whether the target's metric has been at or beyond its value."""
        return self._reached is not None

    def fields(self) -> dict[str, Any]:
        """Its part of the run's record."""
        return {
            "steps_skipped": int(self.final.get("train/steps_skipped", 0)),
            "final": dict(self.final),
            "best": {name: dict(best) for name, best in self.best.items()},
            "target": self.target_record(),
        }

    def target_record(self) -> dict[str, str | float | None] | None:
        """The target's part of the run's record; None where the run has none."""
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
        target = self._target
        return (
            target is not None
            and measurement.name == target.metric
            and reaches(measurement.value, target.value, higher_is_better=self._higher(target.metric))
        )

    def _is_directed(self, name: str) -> bool:
        """Whether it is known which way is better: of the loss, and of what the task says it of."""
        return name == "val/loss" or (name.startswith("val/") and name.removeprefix("val/") in self._higher_is_better)

    def _better(self, name: str, value: float, than: float) -> bool:
        return value > than if self._higher(name) else value < than

    def _higher(self, name: str) -> bool:
        metric = name.removeprefix("val/")
        return metric != "loss" and self._higher_is_better.get(metric, True)
