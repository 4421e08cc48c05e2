"""`report.html`: one self-contained page without scripts or network requests."""

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
from markupsafe import Markup

from batchlab.printable import printable
from batchlab.report.figures.drawing import Drawing
from batchlab.report.render.content import (
    claims_table,
    deciding,
    effect,
    ends,
    published_table,
    runs_table,
    sentence,
    summary,
    what_is_missing,
)
from batchlab.report.render.fits_in_words import fits_in_words
from batchlab.report.render.inline_svg import inline_svg

if TYPE_CHECKING:
    from batchlab.report.report import Report

TEMPLATE, STYLE = "report.html.j2", "report.css"


def as_html(report: "Report", drawn: tuple[Drawing, ...]) -> str:
    """The page. All text is escaped; its policy allows only its own stylesheet, by hash."""
    folder = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters.update(printable=printable, sentence=sentence)
    environment.globals.update(deciding=deciding, effect=effect, ends=ends)
    style = (folder / STYLE).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    figures = [(drawing, Markup(inline_svg(drawing)) if drawing.figure is not None else None) for drawing in drawn]
    return environment.get_template(TEMPLATE).render(
        style=Markup(style),  # the package's own file
        # `img-src data:` is for the empty icon, without which a browser would request one.
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'",
        study=report.study.name,
        summary=summary(report.study),
        advice=report.recommendation,
        claims=report.claims,
        claims_table=claims_table(report.claims),
        published=published_table(report.published),
        fits=list(fits_in_words(report.fits)),
        figures=figures,
        missing=list(what_is_missing(report)),
        runs=runs_table(report.study),
    )
