"""The report of a study: made from its run folders, written next to them."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from batchlab.recording import disk
from batchlab.recording.run_folder import FIGURES, hold_study
from batchlab.report.advice.recommendation import recommend
from batchlab.report.claims import judge_claims
from batchlab.report.compare.published import compare_published
from batchlab.report.fits.fits import fits
from batchlab.report.report import HTML, JSON, MARKDOWN, Report
from batchlab.report.tables.study import read_study

if TYPE_CHECKING:
    from batchlab.report.figures.all_figures import Figures


def make(folder: Path, about: Collection[str] = ()) -> Report:
    """Reads the run folders of a study and judges them; BadRequest if there is no such folder.

    Parts with room for one group, such as the recommendation, show the group with most of the runs `about`, or the
    one with the most batch sizes if none are given.
    """
    study = read_study(folder)
    fitted = fits(study).of_most(about)
    claims = judge_claims(study)
    return Report(study, claims, fitted, recommend(study, fitted, claims), compare_published(study, fitted))


def write(report: Report, folder: Path) -> "Figures":
    """Puts report.md, report.html, report.json and figures/*.png into `folder`, and returns the figures.

    Each file is written aside and moved, so that a reader finds the old one or the new one. StorageError if the disk
    fails.
    """
    # Imported here: matplotlib, jinja2 and tensorboard take a second to load, and the terminal needs none of them.
    from batchlab.report.figures.all_figures import draw_all
    from batchlab.report.render.html import as_html
    from batchlab.report.render.machine_readable import as_json
    from batchlab.report.render.markdown import as_markdown
    from batchlab.tensorboard.study_view import rebuild

    drawn = draw_all(report.study, report.fits)
    disk.make_folder(folder / FIGURES)
    with hold_study(folder):
        disk.sweep(folder / FIGURES)
        for drawing in drawn:
            path = folder / FIGURES / f"{drawing.name}.png"
            if drawing.figure is None:
                disk.remove(path)  # one of an earlier report would look like part of this one
            else:
                disk.write_atomically(path, drawing.png())
        disk.write_atomically(folder / JSON, as_json(report, drawn))
        disk.write_atomically(folder / MARKDOWN, as_markdown(report, drawn))
        disk.write_atomically(folder / HTML, as_html(report, drawn))
    rebuild(folder)  # a study's TensorBoard view shows the figures too; another folder has no runs, so no view
    return drawn
