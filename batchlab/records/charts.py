"""The charts of TensorBoard's CUSTOM SCALARS page, in its order."""

from batchlab.records.quantity import Chart

LEARNING, COST, GRADIENT = "Learning", "Cost", "Gradient"
SHARPNESS, GENERALISATION = "Sharpness", "Generalisation"

CHARTS = (
    VALIDATION_LOSS := Chart(
        LEARNING,
        "validation loss over examples",
        over_steps="validation loss over optimizer steps",
        by_batch_size="validation loss",
    ),
    TRAINING_LOSS := Chart(LEARNING, "training loss over examples"),
    ACCURACY := Chart(LEARNING, "accuracy over examples", by_batch_size="accuracy"),
    GRADIENT_NORM := Chart(LEARNING, "gradient norm over examples"),
    LEARNING_RATE := Chart(LEARNING, "learning rate over examples"),
    SPEED := Chart(COST, "examples per second", by_batch_size="examples per second"),
    STEP_TIME := Chart(COST, "seconds per step"),
    MEMORY := Chart(COST, "memory", by_batch_size="memory"),
    NOISE_SCALE := Chart(GRADIENT, "noise scale in examples, 95% interval", band=True),
    ADAM_NOISE_SCALE := Chart(GRADIENT, "noise scale that Adam sees, 95% interval", band=True),
    NOISE_SCALE_OF_MICRO_BATCHES := Chart(GRADIENT, "noise scale by micro-batches, 95% interval", band=True),
    GRADIENT_VARIANCE := Chart(GRADIENT, "variance of the batch's gradient, 95% interval", band=True),
    SUCCESSIVE_COSINE := Chart(GRADIENT, "cosine of successive gradients"),
    UPDATE_SIZE := Chart(GRADIENT, "update size relative to the weights"),
    LARGEST_EIGENVALUE := Chart(SHARPNESS, "largest eigenvalue of the Hessian, at the end and at matched loss"),
    TRACE := Chart(SHARPNESS, "trace of the Hessian"),
    SAM := Chart(SHARPNESS, "SAM and ASAM"),
    LOSS_GAP := Chart(GENERALISATION, "validation loss minus training loss, 95% interval", band=True),
    HARDEST := Chart(GENERALISATION, "loss of the hardest tenth"),
    WORST_CLASS := Chart(GENERALISATION, "accuracy of the worst class"),
    MEMORISATION := Chart(GENERALISATION, "wrong labels memorised"),
)
