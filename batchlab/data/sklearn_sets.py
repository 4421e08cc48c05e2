"""The small tables that ship inside scikit-learn: nothing to download."""

import importlib

import numpy as np

from batchlab import BadRequest, Task
from batchlab.data.tabular import Table, task_of

CLASSES = ("iris", "wine", "breast_cancer", "digits")
NUMBERS = ("diabetes", "linnerud")


def load(
    name: str = "breast_cancer", val_share: float = 0.2, train_size: int | None = None, label_noise: float = 0.0
) -> Task:
    """Rows (examples, columns) of the set `load_<name>`, and their class, or for diabetes and linnerud numbers."""
    if name not in CLASSES + NUMBERS:
        raise BadRequest(
            f"data.name={name} is not one of the sets that ship with scikit-learn: use one of "
            f"{', '.join(CLASSES + NUMBERS)}; for your own table use data=csv data.path=..."
        )
    # By default diabetes is scaled with statistics of all its rows, including those held out.
    plain = {"scaled": False} if name == "diabetes" else {}
    datasets = importlib.import_module("sklearn.datasets")
    inputs, targets = getattr(datasets, f"load_{name}")(return_X_y=True, **plain)
    inputs = np.asarray(inputs, dtype=np.float64)
    table = Table(
        name=f"data.name={name}",
        inputs=inputs,
        measured=np.ones(inputs.shape[1], dtype=np.bool_),
        targets=targets,
        classes=int(targets.max()) + 1 if name in CLASSES else None,
    )
    return task_of(table, val_share=val_share, train_size=train_size, label_noise=label_noise)
