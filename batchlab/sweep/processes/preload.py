# ruff: noqa: F401 - imported for the children that are forked from here
"""The imports of the warm server before it forks: everything slow, and nothing that uses a device.

No tensor operation and no CUDA query may run here: after a query whether CUDA is available, forked children may not
be able to use CUDA. The first optimizer of a process imports `torch._dynamo` (6 s); scikit-learn's data sets take 6 s
more.

Imports create a million objects that stay: the garbage collector is off meanwhile, which saves a quarter of the time.
They are frozen afterwards, or the collector of each child would copy the memory pages that it visits.
"""

import atexit
import gc

gc.disable()
try:
    import sklearn.datasets
    import torch
    import torch._dynamo
    import torch.fx.experimental.symbolic_shapes  # imported by a backward pass with a given gradient
    import torch.utils.data

    import batchlab.worker.execute
    import batchlab.worker.preflight
finally:  # also if an import fails: the point's own process reports that
    gc.freeze()
    atexit.register(gc.unfreeze)  # otherwise Triton reports leaks at exit
    gc.enable()
