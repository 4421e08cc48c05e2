"""The study's page in TensorBoard's CUSTOM SCALARS tab: the most important charts, side by side."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.custom_scalar import metadata
from tensorboard.plugins.custom_scalar.layout_pb2 import (
    Category,
    Layout,
    MarginChartContent,
    MultilineChartContent,
)
from tensorboard.plugins.custom_scalar.layout_pb2 import Chart as ChartOnPage
from tensorboard.util import tensor_util

from batchlab.records.charts import CHARTS
from batchlab.records.declared import Quantities
from batchlab.records.quantity import PLACEHOLDER, Chart, Quantity
from batchlab.tensorboard.by_batch_size import BY_BATCH_SIZE, over_batch_sizes
from batchlab.tensorboard.event_file import NOT_IN_A_TAG

LOW, HIGH = "_low", "_high"  # suffixes of the curves of a 95% interval
BY_STEP = "_by_step"  # suffix of a curve over optimizer steps
OVER_BATCH_SIZES = "By batch size (the step is the batch size)"

OF_NO_QUANTITY = (
    ("training seconds", "train_seconds.*"),
    ("examples to the target", "target_examples"),
    ("training seconds to the target", "target_seconds.*"),
)


class Drawn(NamedTuple):
    """A chart of the page; its x axis is the step."""

    category: str
    title: str
    tags: Sequence[str]  # regular expressions
    band: bool = False


def layout(tags: Iterable[str], quantities: Quantities) -> Summary:
    """The page, with only the charts whose tags exist, since TensorBoard would show empty charts."""
    known = sorted(tags)
    page: dict[str, list[ChartOnPage]] = {}
    for drawn in _page(quantities):
        if any(re.fullmatch(tag, known_tag) for tag in drawn.tags for known_tag in known):
            page.setdefault(drawn.category, []).append(_chart(drawn, known))
    content = Layout(category=[Category(title=title, chart=charts) for title, charts in page.items()])
    tensor = tensor_util.make_tensor_proto(content.SerializeToString())
    value = Summary.Value(tag=metadata.CONFIG_SUMMARY_TAG, metadata=metadata.create_summary_metadata(), tensor=tensor)
    return Summary(value=[value])


def _page(quantities: Quantities) -> Iterator[Drawn]:
    """All declared charts: those of `CHARTS`, then those of the runs, then the charts over the batch size."""
    members: dict[Chart, list[Quantity]] = {chart: [] for chart in CHARTS}
    named = {(chart.category, chart.title): chart for chart in CHARTS}
    for quantity in quantities:
        if (chart := quantity.chart) is not None:
            members.setdefault(named.setdefault((chart.category, chart.title), chart), []).append(quantity)
    for chart, drawn in members.items():
        yield Drawn(chart.category, chart.title, _tags(drawn), chart.band)
        if chart.over_steps:
            yield Drawn(chart.category, chart.over_steps, [tag + BY_STEP for tag in _tags(drawn)])
    for chart, drawn in members.items():
        if chart.by_batch_size:
            yield Drawn(OVER_BATCH_SIZES, chart.by_batch_size, _tags(drawn, over_batch_sizes=True))
    for title, tag in OF_NO_QUANTITY:
        yield Drawn(OVER_BATCH_SIZES, title, [BY_BATCH_SIZE + tag])


def _tags(quantities: Sequence[Quantity], *, over_batch_sizes: bool = False) -> list[str]:
    """Regular expressions for the curves of one chart; a family also matches the quantities that it covers."""
    families = [quantity for quantity in quantities if quantity.is_family]
    separate = [q for q in quantities if not any(family is not q and family.covers(q.name) for family in families)]
    return [_over_batch_sizes(quantity) if over_batch_sizes else _tag(quantity.name) for quantity in separate]


def _tag(name: str) -> str:
    parts = (re.escape(NOT_IN_A_TAG.sub("_", part)) for part in PLACEHOLDER.split(name))
    return ".*".join(parts)


def _over_batch_sizes(quantity: Quantity) -> str:
    """The names of `by_batch_size`: curves of last and best values, and separate ones for what is not comparable."""
    name = over_batch_sizes(_tag(quantity.name))
    return BY_BATCH_SIZE + ("(best_)?" if quantity.keep_best else "") + name + (".*" if quantity.clocked else "")


def _chart(drawn: Drawn, known: Sequence[str]) -> ChartOnPage:
    tag = drawn.tags[0]
    if drawn.band and {tag + LOW, tag + HIGH} <= set(known):
        series = MarginChartContent.Series(value=tag, lower=tag + LOW, upper=tag + HIGH)
        return ChartOnPage(title=drawn.title, margin=MarginChartContent(series=[series]))
    # Anchored: the plugin matches from the start of a tag, and val/loss is a prefix of val/loss_by_step.
    tags = [f"^{tag}$" for tag in drawn.tags]
    return ChartOnPage(title=drawn.title, multiline=MultilineChartContent(tag=tags))
