"""The command that runs a point of a study once more."""

import pandas as pd

from batchlab.config.option_row import Role
from batchlab.config.options import SWEEP, of_role
from batchlab.printable import command_line
from batchlab.report.tables.groups import column
from batchlab.report.tables.study import Study

# What it sets itself, and options that were for one command, such as force.
CHANGED = (*of_role(Role.REPEATED), "study", "grids", *SWEEP)


def command_of(study: Study, runs: pd.DataFrame) -> str:
    """The command for another run like `runs`, which differ only in their seed: the same arguments, with a seed that
    the study does not have yet, so that the run is new."""
    typed = study.overrides.get(str(runs.index[0]), ())
    kept = [argument for argument in typed if argument.partition("=")[0].lstrip("+~") not in CHANGED]
    seeds = column(study.runs, "seed").dropna()
    kept.append(f"seed={int(seeds.max()) + 1 if len(seeds) else 0}")
    if any(argument.startswith("experiment=") for argument in typed):
        kept.append("grids=[]")  # the experiment's other settings, and not all of its points
    kept.append(f"study={study.name}")
    return command_line(["batchlab", "train", *kept])
