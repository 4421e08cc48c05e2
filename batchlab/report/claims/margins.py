"""The smallest effects that matter: a smaller difference does not count, however precisely it was measured."""

import math

# The change from the smallest to the largest batch size, or between two ways of training; logarithms are of ratios.
MARGINS = {
    # Timings on an idle machine vary this much from day to day; the throughput knee also uses 10%.
    "time": math.log(1.1),
    "speed": math.log(1.1),
    # A twentieth of the examples or steps is less than the distance between validations, by default four an epoch.
    "examples to target": math.log(1.1),
    "steps to target": math.log(1.1),
    # The slope of log steps on log batch size lies between -1 (perfect scaling) and 0: a quarter of that range.
    "bend": 0.25,
    # The slope of log variance on log(1/B - 1/N): half way from no dependence to 1, and how near to 1 counts as 1.
    "noise slope": 0.5,
    "noise slope off 1": 0.1,
    # The relative error of a standard deviation is 1/sqrt(2n): 10% for a curve of 50 windows.
    "smoothness": math.log(1.1),
    # 5% of the loss: on 8x8 digits about one validation image in 360.
    "loss": math.log(1.05),
    "gap": 0.05,  # of the validation loss
    "accuracy": 0.01,
    # Sharpness differs by 20% between seeds of one batch size, and the literature reports factors.
    "sharpness": math.log(1.25),
    "negative curvature": 0.05,  # of the largest eigenvalue
    "share of runs": 0.1,
    # Saving less than 5% of the bytes does not allow a larger batch.
    "bytes": math.log(1.05),
    # Slopes of log best learning rate (or batch size) on the log of its cause: 0.1 is 26% over a factor of ten.
    "learning rate slope": 0.1,
    "best batch slope": 0.1,
    "critical batch": math.log(1.5),
}
