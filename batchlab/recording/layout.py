"""The study's page in TensorBoard's CUSTOM SCALARS tab: the charts one wants to see first, side by side."""

import re
from collections.abc import Iterable

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.custom_scalar import metadata
from tensorboard.plugins.custom_scalar.layout_pb2 import (
    Category,
    Chart,
    Layout,
    MarginChartContent,
    MultilineChartContent,
)
from tensorboard.util import tensor_util

LOW, HIGH = "_low", "_high"  # added to a curve's name for the ends of its 95% interval

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
        "Gradient",
        (
            ("noise scale in examples, 95% interval", "noise/scale_examples"),
            ("noise scale that Adam sees, 95% interval", "noise/adam_scale_examples"),
            ("noise scale by micro-batches, 95% interval", "noise_micro_batches/scale_examples"),
            ("variance of the batch's gradient, 95% interval", "gradient/variance"),
            ("cosine of successive gradients", "gradient/cosine_successive"),
            ("update over weights", "gradient/update_to_weight_ratio"),
        ),
    ),
    (
        "Sharpness",
        (
            ("largest eigenvalue of the Hessian, at the end and at matched loss", "sharpness.*/lambda_max"),
            ("trace of the Hessian", "sharpness.*/trace"),
            ("SAM and ASAM", "sharpness.*/a?sam"),
        ),
    ),
    (
        "Generalisation",
        (
            ("validation loss less training loss, 95% interval", "gap/loss"),
            ("loss of the hardest tenth", "val/hardest_decile_loss"),
            ("accuracy of the worst class", "val/worst_class_accuracy"),
            ("wrong labels learnt by heart", "clean_train/corrupted_accuracy"),
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

# With their intervals as a band, which every point of them has: of a speed only the last has one.
BANDED = {"noise/scale_examples", "noise/adam_scale_examples", "noise_micro_batches/scale_examples"}
BANDED |= {"gradient/variance", "gap/loss"}


def layout(tags: Iterable[str]) -> Summary:
    """The page with those charts only whose tags exist, or the tab would show empty ones."""
    known = sorted(tags)
    page = Layout()
    for title, charts in PAGE:
        there = [(name, tag) for name, tag in charts if any(re.fullmatch(tag, known_tag) for known_tag in known)]
        if there:
            page.category.append(Category(title=title, chart=[_chart(name, tag, known) for name, tag in there]))
    tensor = tensor_util.make_tensor_proto(page.SerializeToString())
    value = Summary.Value(tag=metadata.CONFIG_SUMMARY_TAG, metadata=metadata.create_summary_metadata(), tensor=tensor)
    return Summary(value=[value])


def _chart(title: str, tag: str, known: Iterable[str]) -> Chart:
    if tag in BANDED and {tag + LOW, tag + HIGH} <= set(known):
        series = MarginChartContent.Series(value=tag, lower=tag + LOW, upper=tag + HIGH)
        return Chart(title=title, margin=MarginChartContent(series=[series]))
    # Anchored: the plugin matches from the start of a tag, and val/loss is also how val/loss_by_step begins.
    return Chart(title=title, multiline=MultilineChartContent(tag=[f"^{tag}$"]))
