"""The learning-rate tournament: the best learning rate of each batch size, and the whole grid as a map."""

import math
from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from batchlab.printable import as_sentence
from batchlab.records import Unknown
from batchlab.report.figures.drawing import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    Drawing,
    batch_size_axis,
    draw,
    missing,
    plain_log,
)
from batchlab.report.fits.tournament import Cell, Tournament

MOST_CELLS = 144  # of a map; with more the numbers are unreadable


def tournament(found: Tournament | Unknown) -> Iterator[Drawing]:
    """The best learning rate over batch size with its slope, and the map of results."""
    slope = ("best_rate", "Best learning rate by batch size")
    heat = ("rate_map", "Every learning rate at every batch size")
    if isinstance(found, Unknown):
        yield from (missing(*slope, as_sentence(found.why)), missing(*heat, as_sentence(found.why)))
        return
    yield _slope(found, *slope) if found.best else missing(*slope, "No learning rate reached the end of training.")
    few = len(found.cells) <= MOST_CELLS
    yield _map(found, *heat) if few else missing(*heat, f"{len(found.cells)} learning rates are too many for a map.")


def _slope(found: Tournament, name: str, title: str) -> Drawing:
    slope = found.slope
    caption = (
        f"The learning rate with the lowest {found.by} at each batch size, of a {found.resolution:.3g}-fold grid. "
    )
    if slope is None:
        caption += as_sentence(found.why_no_slope)
    else:
        span = "" if slope.low is None or slope.high is None else f" ({slope.low:.2f} to {slope.high:.2f})"
        caption += f"The slope on log-log axes is {slope.value:.2f}{span}: 1 is linear, 1/2 the square root, 0 none."
    edge = [one.batch_size for one in found.best if one.at_edge]
    if edge:
        caption += f" At {', '.join(f'{size:,}' for size in edge)} the best is at the edge of the grid (hollow)."

    def paint(axes: Axes) -> None:
        for inside, face, label in ((True, BLUE, "best learning rate"), (False, "none", "best, at the grid's edge")):
            of_it = [one for one in found.best if one.at_edge != inside]
            if of_it:
                at, lrs = [one.batch_size for one in of_it], [one.peak_lr for one in of_it]
                axes.scatter(at, lrs, facecolors=face, edgecolors=BLUE, label=label, zorder=3)
        for one in found.best:  # those not shown to differ from the best
            span = [one.peak_lr, *one.as_good]
            axes.plot([one.batch_size] * 2, [min(span), max(span)], color=BLUE, lw=1, alpha=0.5)
        sizes = np.array([one.batch_size for one in found.best], dtype=float)
        base = next((one for one in found.best if one.batch_size == found.reference_batch_size), found.best[0])
        for power, rule, colour in ((1.0, "linear", ORANGE), (0.5, "square root", GREEN), (0.0, "none", GREY)):
            line = base.peak_lr * (sizes / base.batch_size) ** power
            axes.plot(sizes, line, color=colour, lw=1, ls="--", label=f"{rule} from {base.batch_size:,}", zorder=1)
        batch_size_axis(axes, [int(size) for size in sizes])
        plain_log(axes)
        axes.set_ylabel("peak learning rate")

    return draw(name, title, caption, paint)


def _map(found: Tournament, name: str, title: str) -> Drawing:
    sizes = sorted({cell.batch_size for cell in found.cells})
    lrs = sorted({cell.peak_lr for cell in found.cells})
    values = {(cell.batch_size, cell.peak_lr): cell for cell in found.cells}
    best = {(one.batch_size, one.peak_lr) for one in found.best}
    caption = (
        f"Mean {found.by} over seeds, for {len(sizes)} batch sizes and {len(lrs)} peak learning rates; the best of "
        "each batch size has a frame; a cross: a seed diverged or did not reach the target."
    )

    def paint(axes: Axes) -> None:
        grid = np.full((len(lrs), len(sizes)), math.nan)
        for (size, lr), cell in values.items():
            if cell.result is not None and cell.result.value > 0:
                grid[lrs.index(lr), sizes.index(size)] = math.log(cell.result.value)
        axes.grid(visible=False)
        axes.imshow(grid, cmap="cividis_r", aspect="auto", origin="lower")
        known = grid[np.isfinite(grid)]
        middle = float((known.min() + known.max()) / 2) if known.size else 0.0
        for (size, lr), cell in values.items():
            row, column = lrs.index(lr), sizes.index(size)
            dark = math.isfinite(grid[row, column]) and grid[row, column] > middle
            colour = "white" if dark else "black"
            axes.text(column, row, _cell(cell), ha="center", va="center", fontsize=8, color=colour)
            if (size, lr) in best:
                corner = (column - 0.47, row - 0.47)
                axes.add_patch(mpl.patches.Rectangle(corner, 0.94, 0.94, fill=False, edgecolor=RED, linewidth=2))
        axes.set_xticks(range(len(sizes)), [f"{size:,}" for size in sizes])
        axes.set_yticks(range(len(lrs)), [f"{lr:.3g}" for lr in lrs])
        axes.set(xlabel="batch size, examples per step", ylabel="peak learning rate")

    return draw(name, title, caption, paint)


def _cell(cell: Cell) -> str:
    if cell.result is None:
        return "x"
    return f"{cell.result.value:,.0f}" if cell.result.value >= 100 else f"{cell.result.value:.3g}"
