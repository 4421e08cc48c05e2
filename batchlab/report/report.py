"""Everything that is said of a study, before it becomes words or pages."""

from dataclasses import dataclass

from batchlab.report.advice.recommendation import Recommendation
from batchlab.report.claims.claim import Claim
from batchlab.report.compare.published import Beside
from batchlab.report.fits.fits import Fits
from batchlab.report.tables.study import Study

MARKDOWN, HTML, JSON = "report.md", "report.html", "report.json"


@dataclass(frozen=True)
class Report:
    """Everything that is said of a study."""

    study: Study
    claims: tuple[Claim, ...]
    fits: Fits
    recommendation: Recommendation
    published: tuple[Beside, ...] = ()  # what others published of the same, with ours
