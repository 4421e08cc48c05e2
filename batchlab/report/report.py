"""The content of a study's report, before it becomes text or pages."""

from dataclasses import dataclass

from batchlab.report.advice.recommendation import Recommendation
from batchlab.report.claims.claim import Claim
from batchlab.report.compare.published import ComparedFigure
from batchlab.report.fits.fits import Fits
from batchlab.report.tables.study import Study

MARKDOWN, HTML, JSON = "report.md", "report.html", "report.json"


@dataclass(frozen=True)
class Report:
    """The content of a study's report."""

    study: Study
    claims: tuple[Claim, ...]
    fits: Fits
    recommendation: Recommendation
    published: tuple[ComparedFigure, ...] = ()  # published figures, with ours
