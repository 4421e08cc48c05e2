"""What all figures share: size, colours, averages over seeds, and output as PNG and SVG."""

import contextlib
import io
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

from batchlab.report.tables.groups import Mean, by, column, over_seeds
from batchlab.science.statistics.uncertainty import Interval, t_interval

# Small, so that on a phone of 390 pixels a figure shrinks only by a fifth and its text stays readable.
SIZE = (4.9, 3.7)  # inches
STYLE: Any = {
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "text.parse_math": False,  # a name may contain $
    "svg.fonttype": "path",  # the same picture with any fonts
}
# Okabe and Ito (2008): distinguishable with every kind of colour vision.
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#555555"
MARKS = "os^Dv<>pP*Xh"
MOST_SIZES = 12  # lines in one figure; more would be unreadable


@dataclass(frozen=True)
class Drawing:
    """A figure, or why it is missing.

    Each picture is drawn once: `Figure.savefig` would draw it a second time to measure it.
    """

    name: str  # of its file, without the suffix; letters, digits and _
    title: str
    caption: str  # a text alternative in one or two sentences, or why it is missing
    figure: Figure | None = None

    def png(self, dots_per_inch: int = 150) -> bytes:
        """The picture as pixels; the figure must exist."""
        content = io.BytesIO()
        with _style():
            figure = self._figure()
            figure.dpi = dots_per_inch
            canvas: Any = FigureCanvasAgg(figure)
            canvas.print_png(content)
        return content.getvalue()

    def svg(self) -> str:
        """The picture as lines, as matplotlib writes it; equal figures give equal text."""
        content = io.StringIO()
        with _style({"svg.hashsalt": self.name}):
            canvas: Any = FigureCanvasSVG(self._figure())
            canvas.print_svg(content, metadata={"Date": None, "Creator": None})
        return content.getvalue()

    def _figure(self) -> Figure:
        assert self.figure is not None
        return self.figure


def draw(name: str, title: str, caption: str, paint: Callable[[Axes], None], legend: str | None = None) -> Drawing:
    """A figure with one pair of axes, which `paint` fills; `legend` is the title of its legend."""
    with _style():
        figure = Figure(figsize=SIZE, layout="constrained", dpi=150)
        axes = figure.add_subplot()
        paint(axes)
        axes.set_title(title)
        handles, labels = axes.get_legend_handles_labels()
        if handles:
            columns = 4 if max(map(len, labels)) < 12 else 2 if max(map(len, labels)) < 32 else 1
            where: dict[str, Any] = {"loc": "outside lower center", "ncols": columns, "title": legend}
            figure.legend(handles, labels, handlelength=1.8, **where)
        engine = figure.get_layout_engine()
        assert engine is not None
        engine.execute(figure)
        figure.set_layout_engine("none")  # done; it would run again for every format
    return Drawing(name, title, caption, figure)


@contextlib.contextmanager
def _style(more: Any = None) -> Iterator[None]:
    with mpl.rc_context(STYLE | (more or {})), warnings.catch_warnings():
        # A user's name may be in a script that the font lacks: it shows a box, and the tables have the name.
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        yield


def missing(name: str, title: str, why: str) -> Drawing:
    """A missing figure, and the sentence shown instead."""
    return Drawing(name, title, why)


def colour_of(sizes: Sequence[int]) -> dict[int, str]:
    """A colour for each batch size, from dark for small to bright for large, so that lightness shows the order too."""
    ramp = mpl.colormaps["viridis"]
    last = max(1, len(sizes) - 1)
    return {size: mpl.colors.to_hex(ramp(0.9 * i / last)) for i, size in enumerate(sorted(sizes))}


def at_most(sizes: Iterable[int], most: int = MOST_SIZES) -> list[int]:
    """At most so many batch sizes: the two ends and some evenly in between."""
    known = sorted(set(sizes))
    if len(known) <= most:
        return known
    return [known[i] for i in np.unique(np.linspace(0, len(known) - 1, most).round().astype(int))]


def each_size(runs: pd.DataFrame, name: str, *, interval: Mean = t_interval) -> dict[int, Interval]:
    """The mean of a column over seeds with its 95% t interval, by batch size; what is not finite is left out."""
    values = {int(size): column(of_size, name) for size, of_size in by(runs, "batch_size").items()}
    return {size: mean for size, of_size in values.items() if (mean := over_seeds(of_size, interval))}


def factors(values: Sequence[float]) -> Interval:
    """The geometric mean with its t interval on logarithms where all values are positive, else as `t_interval`."""
    if min(values) <= 0:
        return t_interval(values)
    mean = t_interval([math.log(value) for value in values])
    low, high = (None if end is None else math.exp(min(end, 700.0)) for end in (mean.low, mean.high))
    return Interval(math.exp(mean.value), low, high, mean.n)


def points(
    axes: Axes,
    values: dict[int, Interval],
    label: str,
    colour: str,
    mark: str,
    *,
    shift: float = 1.0,
    joined: bool = True,
) -> None:
    """A mark for each batch size, with its interval if any; `shift` keeps two series from hiding each other."""
    sizes = [size * shift for size in values]
    middle = [interval.value for interval in values.values()]
    down = [0.0 if i.low is None else i.value - i.low for i in values.values()]
    up = [0.0 if i.high is None else i.high - i.value for i in values.values()]
    line = f"{mark}{'-' if joined else ''}"
    axes.errorbar(sizes, middle, yerr=[down, up], fmt=line, color=colour, label=label, capsize=3, markersize=5)


def batch_size_axis(axes: Axes, sizes: Iterable[int]) -> None:
    """The horizontal axis of every figure over batch size: logarithmic, with the sizes themselves as ticks."""
    marks = at_most(sizes, 9)
    axes.set_xscale("log")
    axes.set_xticks(marks, [f"{mark:,}" for mark in marks], rotation=0 if len(marks) < 8 else 30)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    axes.set_xlabel("batch size, examples per step")


def plain_log(axes: Axes, axis: str = "y") -> None:
    """A logarithmic axis with plain numbers as ticks, more of them over a short range."""
    chosen = axes.yaxis if axis == "y" else axes.xaxis
    (axes.set_yscale if axis == "y" else axes.set_xscale)("log")
    low, high = axes.get_ylim() if axis == "y" else axes.get_xlim()
    decades = math.log10(high / low) if 0 < low < high < math.inf else 1.0
    between = (1.0,) if decades > 3 else (1.0, 3.0) if decades > 1.5 else (1.0, 2.0, 5.0)
    # A short range would have only one or two ticks at powers and their parts.
    chosen.set_major_locator(LogLocator(subs=between) if decades > 0.6 else MaxNLocator(5))
    chosen.set_minor_locator(NullLocator())
    chosen.set_major_formatter(_plain)


def thousands(axes: Axes) -> None:
    """Thousands separators in the ticks of the horizontal axis."""
    axes.xaxis.set_major_formatter(_plain)


def _plain(value: float, _: object = None) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def counted_seeds(values: dict[int, Interval], noun: str = "seed") -> str:
    """`3 seeds`, or `1 to 3 seeds` if batch sizes differ."""
    counts = sorted({interval.n for interval in values.values()})
    if counts == [1]:
        return f"1 {noun}"
    return f"{counts[0]} {noun}s" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} {noun}s"
