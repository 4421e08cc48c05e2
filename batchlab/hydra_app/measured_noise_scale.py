"""Replaces the run that measured a noise scale by the number that it measured, before the option is checked.

So the id of the run that uses it depends on the number only, not on where the other run is stored.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from batchlab.errors import BadRequest
from batchlab.printable import printable
from batchlab.recording.journal import read_journal
from batchlab.recording.run_folder import METRICS, RECORD, read_record, run_folders
from batchlab.records import Measurement, RunStatus
from batchlab.records.quantities import ADAM_NOISE_SCALE, NOISE, SIGNAL
from batchlab.science.scaling.lr_scaling import NOISE_RULES, RULE_NAMES, check_noise_scale

if TYPE_CHECKING:
    from batchlab.science.statistics.uncertainty import Interval

Reader = Callable[[str, str, str], "Interval"]


def with_number(values: Mapping[str, object], read: Reader | None = None) -> Mapping[str, object]:
    """`values` of a config with a number where `noise_scale` names a run; `read` is `noise_scale_of`, or a cache of it.

    Rounded to 4 digits: its error is larger. BadRequest where the run has none.
    """
    named, rule = values.get("noise_scale"), values.get("lr_scaling")
    if not isinstance(named, str) or not isinstance(rule, str) or rule not in RULE_NAMES:
        return values
    check_noise_scale(rule, named)
    found = (read or noise_scale_of)(named, rule, str(values.get("runs_dir")))
    return {**values, "noise_scale": float(f"{found.value:.4g}")}


def noise_scale_of(named: str, rule: str, runs_dir: str) -> "Interval":
    """What a finished run measured for `rule`, in examples; `named` is its folder, or `STUDY/RUN` in `runs_dir`.

    The noise scale averaged over the run (`over_training`). For a rule that uses Adam's noise scale it is the median
    over training, as the journal does not hold its signal and noise. BadRequest where there is no such run, or where
    it measured no noise scale or none that is resolved.
    """
    folder = _run_folder(named, runs_dir)
    unreadable: list[str] = []
    record = read_record(folder, unreadable)
    if record is None:
        raise BadRequest(f"noise_scale={printable(named)} is invalid: {printable(unreadable[0])}")
    if record.status is not RunStatus.COMPLETED:
        raise BadRequest(
            f"noise_scale={printable(named)} is invalid: that run is {record.status}, but a noise scale needs "
            "a completed run; give another run, or a number of examples"
        )
    taken = read_journal(folder / METRICS)
    of_adam = NOISE_RULES[rule].of_adam
    found = _of_adam(taken) if of_adam else _over_training(taken)
    if found is None:
        sought, how = (ADAM_NOISE_SCALE, "optimizer=adamw instruments=full") if of_adam else (NOISE, "instruments=full")
        raise BadRequest(
            f"noise_scale={printable(named)} is invalid: that run measured no {sought.name}; "
            f"train it again with {how}, or give a number of examples"
        )
    if not (math.isfinite(found.value) and found.value > 0):
        raise BadRequest(
            f"noise_scale={printable(named)} is invalid: that run did not resolve it, as the noise hides the gradient; "
            "raise instruments.noise_scale.draws, or give another run or a number of examples"
        )
    return found


def reported_noise_scale(named: str, rule: str, runs_dir: str) -> "Interval":
    """`noise_scale_of`, which also writes the result to stderr."""
    found = noise_scale_of(named, rule, runs_dir)
    bounds = "" if found.low is None else f" (95% interval {found.low:.4g} to {found.high:.4g})"
    how = "the median of" if NOISE_RULES[rule].of_adam else "from"
    sys.stderr.write(
        f"lr_scaling={rule}: noise_scale={found.value:.4g} examples{bounds}, {how} {found.n} measurements "
        f"of {printable(named)}\n"
    )
    return found


def _run_folder(named: str, runs_dir: str) -> Path:
    candidates = [Path(named), Path(runs_dir) / named]
    for folder in candidates:
        if (folder / RECORD).is_file():
            return folder
    for folder in candidates:
        if runs := run_folders(folder):
            raise BadRequest(
                f"noise_scale={printable(named)} is invalid: that is a study of {len(runs)} runs; give one of them, "
                f"such as noise_scale={printable(runs[0])}"
            )
    raise BadRequest(
        f"noise_scale={printable(named)} is invalid: no run is there; give a number of examples above 0, or the "
        "folder of a run that measured it, runs/STUDY/RUN (`batchlab list STUDY` shows the runs of a study)"
    )


def _over_training(taken: Sequence[Measurement]) -> "Interval | None":
    from batchlab.science.scaling.noise_over_training import over_training  # imports SciPy, which takes 0.1 s

    signal, noise = ({m.examples: _interval(m) for m in taken if m.name == name} for name in (SIGNAL.name, NOISE.name))
    both = [at for at in signal if at in noise and math.isfinite(signal[at].value + noise[at].value)]
    return over_training([signal[at] for at in both], [noise[at] for at in both]) if both else None


def _of_adam(taken: Sequence[Measurement]) -> "Interval | None":
    from batchlab.science.statistics.uncertainty import median_interval

    values = [m.value for m in taken if m.name == ADAM_NOISE_SCALE.name and not math.isnan(m.value)]
    return median_interval(values) if values else None


def _interval(measurement: Measurement) -> "Interval":
    from batchlab.science.statistics.uncertainty import Interval

    return Interval(measurement.value, measurement.low, measurement.high, measurement.n or 0)
