"""A study as the claims read it: its measurements by name, its runs by what they share."""

import functools
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import pandas as pd

from batchlab.recording.files import to_json
from batchlab.records import Unknown
from batchlab.records.quantities import VALIDATION_LOSS
from batchlab.report.claims.settings import Setting, by_result, by_steps, equal_except, settings
from batchlab.report.fits.tournament import Tournament, lrs_tried, tournament
from batchlab.report.tables.groups import Group, groups
from batchlab.report.tables.study import Study

# Columns that no claim reads: there are hundreds, which would be copied whenever a few runs are selected.
NOT_READ = ("environment.", "instruments.", "final.")


@dataclass(frozen=True)
class Curves(Study):
    """A study, with the tables that all claims share."""

    @classmethod
    def of(cls, study: Study) -> Self:
        read = [name for name in study.runs if not str(name).startswith(NOT_READ) or name == VALIDATION_LOSS.final]
        return cls(**{f.name: getattr(study, f.name) for f in fields(Study)} | {"runs": study.runs[read]})

    @functools.cached_property
    def by_name(self) -> dict[str, pd.DataFrame]:
        return {str(name): part for name, part in self.measurements.groupby("name", sort=False)}

    @functools.cached_property
    def ends(self) -> dict[str, "pd.Series[float]"]:
        """The last value of each measurement, by name, then by run id."""
        return {name: part.groupby("run_id")["value"].last() for name, part in self.by_name.items()}

    @functools.cached_property
    def lows(self) -> dict[str, "pd.Series[float]"]:
        """The lowest finite value of each measurement, by name, then by run id."""
        return {
            name: part[np.isfinite(part["value"])].groupby("run_id")["value"].min()
            for name, part in self.by_name.items()
        }

    @functools.cached_property
    def groups(self) -> list[Group]:
        """Runs equal in all but batch size, seed and learning rate, with all their columns."""
        own = ["lr", "other_device"]
        return [replace(g, runs=self.runs.loc[g.runs.index].assign(**g.runs[own])) for g in groups(self)]

    @functools.cached_property
    def tournaments(self) -> list[tuple[Group, Tournament | Unknown]]:
        """The learning-rate tournament of each group, or why it has none."""
        return [(group, tournament(group, lrs_tried(group))) for group in self.groups]

    @functools.cached_property
    def settings(self) -> list[Setting]:
        """What is compared, at the learning rate with the best result if several were tried."""
        return settings(self.groups, by_result)

    @functools.cached_property
    def settings_to_target(self) -> list[Setting]:
        """What is compared on the way to the target, at the learning rate that reaches it in the fewest steps."""
        return settings(self.groups, by_steps)

    def equal_except(self, *options: str) -> list[tuple[str, pd.DataFrame]]:
        """Runs that are equal in all but batch size, seed and these options."""
        return equal_except(self.runs, self.written, options)

    @functools.cached_property
    def written(self) -> pd.DataFrame:
        """The options of each run, as text that can be compared."""
        return self.requested.map(to_json)

    def measured(self, name: str, runs: pd.DataFrame) -> pd.DataFrame:
        """The measurements called `name` of these runs, in their order."""
        table = self.by_name.get(name)
        if table is None:
            return self.measurements.iloc[:0]
        return table[table["run_id"].isin(runs.index)]
