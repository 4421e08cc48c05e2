"""A study as the claims read it: its measurements by name, its runs by what they share."""

import functools
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import pandas as pd

from batchlab.recording.files import to_json
from batchlab.records import Unknown
from batchlab.records.quantities import VALIDATION_LOSS
from batchlab.report.claims.settings import Setting, alike_but, by_result, by_steps, settings
from batchlab.report.fits.tournament import Tournament, rates_tried, tournament
from batchlab.report.tables.groups import Group, groups
from batchlab.report.tables.study import Study

# Columns of runs that no claim reads: they are hundreds, and would be copied whenever a few runs are picked.
NOT_READ = ("environment.", "instruments.", "final.")


@dataclass(frozen=True)
class Curves(Study):
    """A study, with what twenty claims would each work out again."""

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
        """Runs equal in all but batch size, seed and rate, with all their columns."""
        own = ["lr", "other_device"]
        return [replace(g, runs=self.runs.loc[g.runs.index].assign(**g.runs[own])) for g in groups(self)]

    @functools.cached_property
    def tournaments(self) -> list[tuple[Group, Tournament | Unknown]]:
        """What the rates of each group came to, or why they say nothing."""
        return [(group, tournament(group, rates_tried(group))) for group in self.groups]

    @functools.cached_property
    def settings(self) -> list[Setting]:
        """What is compared, at the rate with the best result where several were tried."""
        return settings(self.groups, by_result)

    @functools.cached_property
    def settings_to_target(self) -> list[Setting]:
        """What is compared on the way to the target, at the rate that gets there in the fewest steps."""
        return settings(self.groups, by_steps)

    def alike_but(self, *knobs: str) -> list[tuple[str, pd.DataFrame]]:
        """Runs that are equal in all but batch size, seed and these knobs."""
        return alike_but(self.runs, self.written, knobs)

    @functools.cached_property
    def written(self) -> pd.DataFrame:
        """What each run was asked, as text that can be compared."""
        return self.asked.map(to_json)

    def measured(self, name: str, runs: pd.DataFrame) -> pd.DataFrame:
        """The measurements called `name` of these runs, in their order."""
        table = self.by_name.get(name)
        if table is None:
            return self.measurements.iloc[:0]
        return table[table["run_id"].isin(runs.index)]
