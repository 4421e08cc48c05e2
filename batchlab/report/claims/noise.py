"""How noisy the gradient of a batch is."""

import numpy as np

from batchlab.records.quantities import GRADIENT_VARIANCE
from batchlab.report.claims.claim import Evidence
from batchlab.report.claims.evidence import WEIGHTS, Findings, evidence, table_of, within
from batchlab.report.claims.margins import MARGINS
from batchlab.report.claims.run_values import first, log
from batchlab.report.claims.runs import Curves
from batchlab.report.tables.groups import column
from batchlab.science.statistics.pairing import Paired


def gradient_noise(study: Curves) -> Findings:
    """The slope of log variance of the batch gradient on log(1/B - 1/N), at each run's start: 1 in theory."""
    found: list[Evidence] = []
    in_proportion: list[Evidence] = []
    for setting in study.settings:
        n_train = column(setting.runs, "n_train").dropna()
        # A batch of all examples has no noise, so no logarithm.
        runs = setting.runs.loc[n_train.index][setting.runs.loc[n_train.index, "batch_size"] < n_train]
        variance = log(first(study, runs, GRADIENT_VARIANCE.name))
        if not len(variance):
            continue
        slopes = _slopes(table_of(runs, variance), float(n_train.iloc[0]))
        if not slopes:
            continue
        what = "slope of log gradient variance on log(1/B - 1/N), at the same weights"
        one = evidence(setting, variance.index, what, WEIGHTS, slopes, margin="noise slope", unit="slope")
        near = within([slope - 1 for slope in slopes], MARGINS["noise slope off 1"])
        found.append(one)
        in_proportion.append(
            Evidence(
                f"how far within {MARGINS['noise slope off 1']:g} of 1 that slope is",
                *(WEIGHTS, one.rate, near, "slope", one.seeds, one.runs),
            )
        )
    missing = "it needs gradient/variance at the start of runs at two batch sizes or more"
    return Findings(found, missing, ("instruments=full",), second=in_proportion)


def _slopes(table: Paired, n_train: float) -> list[float]:
    if len(table.batch_sizes) < 2:
        return []
    x = np.log(1 / np.array(table.batch_sizes, dtype=float) - 1 / n_train)
    return [float(np.polyfit(x, row, 1)[0]) for row in table.values]
