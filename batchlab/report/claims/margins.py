"""The smallest effects that matter: below them a difference is none, however surely it was measured."""

import math

# The change from the smallest to the largest batch size, or between two ways of training; logarithms are of ratios.
MARGINS = {
    # What a stopwatch shows from one day to the next on an idle machine; the knee too is drawn at 10%.
    "time": math.log(1.1),
    "speed": math.log(1.1),
    # A twentieth of the examples or steps is less than one look apart at the default of four looks an epoch.
    "examples to target": math.log(1.1),
    "steps to target": math.log(1.1),
    # Of the slope of log steps on log batch size, between -1 (perfect scaling) and 0: a quarter of the way.
    "bend": 0.25,
    # Of the slope of log variance on log(1/B - 1/N): half way from no noise at all to 1, and how near to 1 is 1.
    "noise slope": 0.5,
    "noise slope off 1": 0.1,
    # A spread is known to 1/sqrt(2n) of itself: of a curve of 50 windows to 10%.
    "smoothness": math.log(1.1),
    # 5% of the loss: on 8x8 digits about one validation image in 360.
    "loss": math.log(1.05),
    "gap": 0.05,  # of the validation loss
    "accuracy": 0.01,
    # Sharpness differs by 20% between seeds of one batch size, and the literature speaks of factors.
    "sharpness": math.log(1.25),
    "negative curvature": 0.05,  # of the largest eigenvalue
    "share of runs": 0.1,
    # Less than 5% of the bytes buys no larger batch.
    "bytes": math.log(1.05),
    # Slopes of log best rate (or batch size) on the log of what moves it: 0.1 is 26% over a factor of ten.
    "rate slope": 0.1,
    "best batch slope": 0.1,
    "critical batch": math.log(1.5),
}
