"""Every figure of a report, in reading order."""

import pandas as pd

from batchlab.records import Unknown
from batchlab.report.figures.cost import MEMORY, PER_STEP, THROUGHPUT, cost
from batchlab.report.figures.drawing import Drawing, missing
from batchlab.report.figures.endings import endings
from batchlab.report.figures.gradient import noise_over_training
from batchlab.report.figures.learning_rates import tournament
from batchlab.report.figures.loss_curves import loss_curves
from batchlab.report.figures.shown import shown
from batchlab.report.figures.target import seconds, steps_and_examples
from batchlab.report.fits.fits import Fits
from batchlab.report.tables.study import Study

NO_RUNS = "The study has no runs."

Figures = tuple[Drawing, ...]


def draw_all(study: Study, fits: Fits) -> Figures:
    """The figures of the group with the most batch sizes; if the study has no data for one, the reason."""
    group = fits.main
    runs = shown(study, group, len(fits.groups))
    empty = pd.DataFrame({"batch_size": [], "status": []})
    drawn = list(loss_curves(study, runs))
    if group is None:
        return (*drawn, *(missing(*name, NO_RUNS) for name in (THROUGHPUT, PER_STEP, MEMORY)))
    # The target's figures come from another group if the main one has no target.
    target = next((one for one in fits.groups if not isinstance(one.to_target, Unknown)), group)
    drawn += steps_and_examples(target.to_target)
    drawn.append(seconds(target.time_to_target))
    drawn += cost(group, empty if runs is None else runs.runs)
    raced = next((one for one in fits.groups if not isinstance(one.tournament, Unknown)), group)
    drawn += tournament(raced.tournament)
    drawn += noise_over_training(study, runs)
    drawn += endings(study, runs)
    return tuple(drawn)
