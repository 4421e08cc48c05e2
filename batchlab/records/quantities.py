"""The one table of what is measured: instruments declare from it, and tables and charts read it.

It is a layer below all of them, since reports are made without importing instruments, also from old run folders. What
a user's own instrument or task declares in addition is in the run's record (`records.declared`).
"""

from dataclasses import replace

from batchlab.records import charts
from batchlab.records.quantity import (
    BYTES,
    DIFFERENCE,
    EXAMPLES_PER_SECOND,
    LOSS,
    NO_UNIT,
    RATIO,
    SHARE,
    Chart,
    Quantity,
)

EXAMPLES, SECONDS, STEPS, PERCENT = "examples", "seconds", "steps", "percent"
SLOPE, SQUARED_SLOPE, CURVATURE = "loss/weight", "(loss/weight)^2", "loss/weight^2"
OF_VALIDATION = "val/"  # prefix of metrics on the validation set, which a target may name
OF_THE_METRIC = "the metric's"

VALIDATION = (
    VALIDATION_LOSS := Quantity(
        "val/loss",
        LOSS,
        "mean loss of the validation set",
        higher_is_better=False,
        chart=charts.VALIDATION_LOSS,
        keep_best=True,
        compared=DIFFERENCE,
        label="val loss",
        column="val\nloss",
        headline=True,
    ),
    Quantity(
        "val/accuracy",
        SHARE,
        "accuracy on the validation set",
        higher_is_better=True,
        chart=charts.ACCURACY,
        keep_best=True,
        column="val\naccuracy",
        headline=True,
    ),
    Quantity("val/<metric>", OF_THE_METRIC, "another metric of the task on the validation set", keep_best=True),
)
WORST_CLASS = (
    WORST_CLASS_ACCURACY := Quantity(
        "val/worst_class_accuracy", SHARE, "accuracy of the worst class", True, chart=charts.WORST_CLASS
    ),
)
THROUGHPUT = (
    TRAINING_SPEED := Quantity(
        "speed/examples_per_second",
        EXAMPLES_PER_SECOND,
        "training examples by the training clock",
        higher_is_better=True,
        clocked=True,
        chart=charts.SPEED,
        compared=RATIO,
        label="examples/s",
        column="examples\n/s",
        headline=True,
    ),
    STEP_TIME := Quantity(
        "speed/seconds_per_step", SECONDS, "time of an optimizer step", False, True, charts.STEP_TIME
    ),
    BUSY := Quantity("speed/device_busy_share", SHARE, "share of a pass in which the GPU computes", True, True),
)


def _bytes(name: str, meaning: str, *, clocked: bool = True, label: str = "", column: str = "") -> Quantity:
    found = Quantity(f"memory/{name}_bytes", BYTES, meaning, False, clocked, charts.MEMORY, label=label, column=column)
    return replace(found, compared=RATIO) if label else found


# Peak memory of training, in order of preference: old runs have one of the last two.
PEAKS = (
    PEAK_GROWTH := replace(
        _bytes("peak_growth", "growth by training", label="bytes that training took", column="peak\nMiB"), headline=True
    ),
    PEAK_ALLOCATED := _bytes("peak_allocated", "peak that CUDA allocated", label="peak bytes, CUDA"),
    _bytes("peak_resident", "growth of the process", label="peak bytes, process"),
)
SAVED_FOR_BACKWARD = _bytes(
    "saved_for_backward",
    "saved for the backward pass",
    clocked=False,  # counted
    label="bytes saved for backward",
    column="saved\nMiB",
)
MEMORY = (
    *PEAKS,
    SAVED_FOR_BACKWARD,
    PEAK_RESERVED := _bytes("peak_reserved", "peak that PyTorch took from the GPU"),
    _bytes("device_used", "in use on the GPU at the end, by all programs"),
    _bytes("resident_data", "data sets on the device", clocked=False),
    _bytes("resident_model", "weights and buffers on the device", clocked=False),
)
TRAINING_LOSS = (
    WINDOW_LOSS := Quantity("train/loss", LOSS, "mean loss of a window of training", False, chart=charts.TRAINING_LOSS),
    Quantity("train/learning_rate", NO_UNIT, "learning rate of the last step", chart=charts.LEARNING_RATE),
    STEPS_SKIPPED := Quantity("train/steps_skipped", STEPS, "updates skipped by the fp16 scaler so far", False),
)
GRADIENT = (Quantity("train/gradient_norm", SLOPE, "norm of a batch's gradient", chart=charts.GRADIENT_NORM),)
GENERALISATION = (
    CLEAN_LOSS := Quantity("clean_train/loss", LOSS, "mean loss of training examples in eval mode", False),
    Quantity("clean_train/<metric>", OF_THE_METRIC, "a metric of the task on the same examples"),
    LOSS_GAP := Quantity(
        "gap/loss", LOSS, "validation loss minus loss of the training examples", False, chart=charts.LOSS_GAP
    ),
    Quantity("gap/<metric>", OF_THE_METRIC, "how much worse a metric is in validation", False),
    HARDEST_DECILE_LOSS := Quantity(
        "val/hardest_decile_loss", LOSS, "mean loss of the hardest tenth", False, chart=charts.HARDEST
    ),
)
MEMORISATION = (
    CORRUPTED_ACCURACY := Quantity(
        "clean_train/corrupted_accuracy", SHARE, "wrong labels predicted", False, chart=charts.MEMORISATION
    ),
    Quantity("clean_train/corrupted_true_accuracy", SHARE, "true labels predicted in spite of wrong labels", True),
)
GRADIENT_STATISTICS = (
    GRADIENT_VARIANCE := Quantity(
        "gradient/variance", SQUARED_SLOPE, "variance of a batch's gradient", chart=charts.GRADIENT_VARIANCE
    ),
    Quantity("gradient/cosine_successive", NO_UNIT, "cosine of successive gradients", chart=charts.SUCCESSIVE_COSINE),
    Quantity("gradient/update_to_weight_ratio", NO_UNIT, "relative size of an update", chart=charts.UPDATE_SIZE),
)
NOISE_CHARTS = {
    "noise": (charts.NOISE_SCALE, charts.ADAM_NOISE_SCALE),
    "noise_micro_batches": (charts.NOISE_SCALE_OF_MICRO_BATCHES, None),
}


def noise_scale(group: str) -> tuple[Quantity, ...]:
    """The quantities of a noise-scale instrument whose names begin with `group`."""
    own = Chart(charts.GRADIENT, f"noise scale of {group}, 95% interval", band=True)
    chart, adam_chart = NOISE_CHARTS.get(group, (own, None))
    return (
        Quantity(f"{group}/scale_examples", EXAMPLES, "noise scale of the gradient", chart=chart),
        Quantity(f"{group}/scale_examples.<layer>", EXAMPLES, "noise scale of the gradient of one layer"),
        Quantity(
            f"{group}/squared_gradient_norm", SQUARED_SLOPE, "signal: squared norm of the training set's gradient"
        ),
        Quantity(f"{group}/gradient_variance", SQUARED_SLOPE, "noise: variance of the gradient of one example"),
        Quantity(
            f"{group}/adam_scale_examples", EXAMPLES, "noise scale of the gradient as Adam divides it", chart=adam_chart
        ),
        Quantity(f"{group}/full_scale_examples", EXAMPLES, "noise scale by the Hessian, tr(H Sigma)/(G'HG)"),
    )


NOISE_SCALE = {quantity.name.partition("/")[2]: quantity for quantity in noise_scale("noise")}
SIGNAL, NOISE = NOISE_SCALE["squared_gradient_norm"], NOISE_SCALE["gradient_variance"]
ADAM_NOISE_SCALE = NOISE_SCALE["adam_scale_examples"]
AT = "sharpness<_at_loss_LEVEL>"
SHARPNESS = (
    Quantity(f"{AT}/loss", LOSS, "mean loss of the examples that it is measured on", False),
    Quantity(f"{AT}/lambda_max", CURVATURE, "largest eigenvalue of the Hessian", chart=charts.LARGEST_EIGENVALUE),
    Quantity(f"{AT}/lambda_min", CURVATURE, "smallest eigenvalue of the Hessian"),
    Quantity(f"{AT}/trace", CURVATURE, "trace of the Hessian", chart=charts.TRACE),
    Quantity(f"{AT}/sam", LOSS, "rise of the loss over a step uphill", chart=charts.SAM),
    Quantity(f"{AT}/asam", LOSS, "the same, relative to each weight", chart=charts.SAM),
    Quantity(f"{AT}/keskar", PERCENT, "Keskar's metric, a lower bound"),
)
# Measurements with these names are always of time or memory, whichever instrument made them.
UNDECLARED = (
    Quantity("speed/<unit>", "as named", "a speed measured by another instrument", clocked=True),
    Quantity("memory/<what>_bytes", BYTES, "memory measured by another instrument", clocked=True, chart=charts.MEMORY),
)

TABLE = (
    *(*VALIDATION, *WORST_CLASS, *THROUGHPUT, *MEMORY, *TRAINING_LOSS, *GRADIENT, *GENERALISATION, *MEMORISATION),
    *(*GRADIENT_STATISTICS, *noise_scale("noise"), *noise_scale("noise_micro_batches"), *SHARPNESS, *UNDECLARED),
)
