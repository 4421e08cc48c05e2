"""The command that runs a point of a study once more."""

import shlex

import pandas as pd

from batchlab.config.option_row import Role
from batchlab.config.options import of_role
from batchlab.report.tables.groups import column
from batchlab.report.tables.study import Study

CHANGED = (*of_role(Role.REPEATED), "study", "grids")


def command_of(study: Study, runs: pd.DataFrame) -> str:
    """What to type for another run like `runs`, which differ in their seed alone: as they were typed, with a seed that
    the study has not seen, so that it is no run that stands already."""
    typed = study.overrides.get(str(runs.index[0]), ())
    kept = [word for word in typed if word.partition("=")[0].lstrip("+~") not in CHANGED]
    seeds = column(study.runs, "seed").dropna()
    kept.append(f"seed={int(seeds.max()) + 1 if len(seeds) else 0}")
    if any(word.startswith("experiment=") for word in typed):
        kept.append("grids=[]")  # the experiment's other settings, and not all of its points
    kept.append(f"study={study.name}")
    return shlex.join(["batchlab", "train", *kept])
