"""The study's page in TensorBoard's CUSTOM SCALARS tab: the charts one wants to see first, side by side."""

import re
from collections.abc import Iterable

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.custom_scalar import metadata
from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout, MultilineChartContent
from tensorboard.util import tensor_util

Charts = tuple[tuple[str, str], ...]  # title, and a regular expression of tags

# The step of a curve is what TensorBoard draws it over.
PAGE: tuple[tuple[str, Charts], ...] = (
    (
        "Learning",
        (
            ("validation loss over examples", "val/loss"),
            ("validation loss over optimizer steps", "val/loss_by_step"),
            ("training loss over examples", "train/loss"),
            ("accuracy over examples", "val/accuracy"),
            ("gradient norm over examples", "train/gradient_norm"),
            ("learning rate over examples", "train/learning_rate"),
        ),
    ),
    (
        "Cost",
        (
            ("examples per second", "speed/examples_per_second"),
            ("seconds per step", "speed/seconds_per_step"),
            ("memory", "memory/.*_bytes"),
        ),
    ),
    (
        "By batch size (the step is the batch size)",
        (
            ("validation loss", "by_batch_size/(best_)?val_loss"),
            ("accuracy", "by_batch_size/(best_)?val_accuracy"),
            ("examples per second", "by_batch_size/examples_per_second.*"),
            ("memory", "by_batch_size/memory_.*_bytes.*"),
            ("training seconds", "by_batch_size/train_seconds.*"),
            ("examples to the target", "by_batch_size/target_examples"),
            ("training seconds to the target", "by_batch_size/target_seconds.*"),
        ),
    ),
)


def layout(tags: Iterable[str]) -> Summary:
    """The page with those charts only whose tags exist, or the tab would show empty ones."""
    known = sorted(tags)
    page = Layout()
    for title, charts in PAGE:
        # Anchored: the plugin matches from the start of a tag, and val/loss is also how val/loss_by_step begins.
        there = [(name, f"^{tag}$") for name, tag in charts if any(re.fullmatch(tag, known_tag) for known_tag in known)]
        if there:
            page.category.append(
                Category(
                    title=title,
                    chart=[Chart(title=name, multiline=MultilineChartContent(tag=[tag])) for name, tag in there],
                )
            )
    tensor = tensor_util.make_tensor_proto(page.SerializeToString())
    value = Summary.Value(tag=metadata.CONFIG_SUMMARY_TAG, metadata=metadata.create_summary_metadata(), tensor=tensor)
    return Summary(value=[value])
