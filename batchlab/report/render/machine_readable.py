"""`report.json`: the whole report for programs."""

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from batchlab.recording.files import to_json
from batchlab.records import Unknown
from batchlab.report.figures.drawing import Drawing
from batchlab.report.fits.tournament import Ended
from batchlab.report.render.content import devices
from batchlab.report.tables.groups import Tuning

if TYPE_CHECKING:
    from batchlab.report.report import Report


def as_json(report: "Report", drawn: tuple[Drawing, ...]) -> str:
    """The claims with their evidence, the fits, the recommendation, the runs and what the figures show.

    Numbers that are not finite are `"nan"`, `"inf"` and `"-inf"`, as in `metrics.jsonl`; missing values are null.
    """
    figures = [
        {
            "name": drawing.name,
            "title": drawing.title,
            "says": drawing.caption,
            "file": None if drawing.figure is None else f"figures/{drawing.name}.png",
        }
        for drawing in drawn
    ]
    content = {
        "study": report.study.name,
        "measured_on": devices(report.study),
        "recommendation": _plain(report.recommendation),
        "claims": _plain(report.claims),
        "fits": _plain(report.fits),
        "published": _plain(report.published),
        "figures": figures,
        "damaged": list(report.study.damaged),
        "runs": _plain(report.study.runs.reset_index()),
    }
    return to_json(content, indent=2) + "\n"


def _plain(value: Any) -> Any:
    """Dataclasses, tables and NumPy numbers as JSON types."""
    if isinstance(value, pd.DataFrame):
        return [{str(key): _plain(cell) for key, cell in row.items()} for row in value.to_dict("records")]
    if isinstance(value, Tuning | Ended | Unknown):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return None if value is pd.NA or value is pd.NaT else value
