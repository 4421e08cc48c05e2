# ruff: noqa: F401 - imported for the children that are forked from here
"""The imports of the warm server before it forks: everything slow, and nothing that uses a device.

No tensor operation and no CUDA query may run here: after a query whether CUDA is available, forked children may not
be able to use CUDA. The first optimizer of a process imports `torch._dynamo` (6 s); scikit-learn's data sets take 6 s
more.
"""

from batchlab.worker.frozen_imports import frozen_imports

with frozen_imports():
    import sklearn.datasets
    import torch
    import torch._dynamo
    import torch.fx.experimental.symbolic_shapes  # imported by a backward pass with a given gradient
    import torch.utils.data

    import batchlab.worker.execute
    import batchlab.worker.preflight
