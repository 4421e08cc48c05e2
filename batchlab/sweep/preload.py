# ruff: noqa: F401 - imported for the children that are forked from here
"""What the warm server imports before it forks: everything slow, and nothing that touches a device.

No tensor operation and no CUDA query may run here: a fork of a process that has asked whether there is CUDA
may not be able to use CUDA. `torch._dynamo` is what the first optimizer of a process imports (6 s); scikit-learn's
data sets cost 6 s more.
"""

from batchlab.sweep.frozen_imports import frozen_imports

with frozen_imports():
    import sklearn.datasets
    import torch
    import torch._dynamo
    import torch.fx.experimental.symbolic_shapes  # what a backward pass with a given gradient imports
    import torch.utils.data

    import batchlab.preflight
    import batchlab.run
