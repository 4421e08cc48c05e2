"""`report.md`: the report for a repository or an editor."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from batchlab.printable import printable
from batchlab.report.figures.drawing import Drawing
from batchlab.report.render.content import (
    Table,
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

if TYPE_CHECKING:
    from batchlab.report.report import Report

SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~$-])")


def as_markdown(report: "Report", drawn: tuple[Drawing, ...]) -> str:
    """The whole report, with figures by relative path."""
    return "\n".join(_lines(report, drawn)) + "\n"


def _lines(report: "Report", drawn: tuple[Drawing, ...]) -> Iterator[str]:
    yield from (f"# Batch size report: {text(report.study.name)}", "", text(summary(report.study)), "")
    advice = report.recommendation
    yield from ("## Recommendation", "", text(advice.text), "")
    if advice.sure:
        yield from (text(advice.sure), "")
    if advice.command:
        yield from (_code(advice.command), "")
    yield from ("## Claims", "", *_table(claims_table(report.claims)), "")
    for claim in report.claims:
        yield f"- **{text(claim.id)}** ({text(claim.verdict)}): {text(claim.statement)}. {text(sentence(claim.why))}"
        chosen = deciding(claim)
        for evidence in claim.evidence:
            mark = " (shown above)" if evidence is chosen and len(claim.evidence) > 1 else ""
            interval = ends(evidence.effect.interval)
            how = f"95% {interval}, {evidence.held_equal}, learning rate {evidence.rate}, {len(evidence.runs)} runs"
            yield f"  - {text(f'{evidence.what}: {effect(evidence)}, {how}')}{mark}"
    if report.published:
        yield from ("", "## Published", "", *_table(published_table(report.published)))
    for line in fits_in_words(report.fits):
        if line.title:
            yield from ("", f"## {text(line.title)}", "")
        yield f"- **{line.label}**: {text(line.text)}" if line.label else f"- {text(line.text)}"
        if line.table is not None:
            yield from ("", *_table(line.table), "")
    yield from ("", "## Figures", "")
    for drawing in drawn:
        if drawing.figure is None:
            yield from (f"{text(drawing.title)}: none. {text(drawing.caption)}", "")
        else:
            yield from (f"![{text(drawing.title)}](figures/{drawing.name}.png)", "", text(drawing.caption), "")
    gaps = list(what_is_missing(report))
    if gaps:
        yield from ("## What is missing", "")
    for gap in gaps:
        yield f"- {text(gap.what)}"
        if gap.command:
            yield from ("", *(f"  {line}" for line in _code(gap.command).splitlines()), "")
    yield from ("", "## Runs", "", *_table(runs_table(report.study)))


def text(value: object) -> str:
    """`value` as plain Markdown text, without tags, links, images or emphasis."""
    escaped = SPECIAL.sub(r"\\\1", printable(value))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _code(command: str) -> str:
    return f"```\n{printable(command).replace('```', '` ` `')}\n```"


def _table(table: Table) -> Iterator[str]:
    if table.rows:
        yield f"| {' | '.join(table.titles)} |"
        yield f"|{'---|' * len(table.titles)}"
        for row in table.rows:
            yield f"| {' | '.join(map(text, row))} |"
    if table.note:
        yield from ("", text(table.note))
