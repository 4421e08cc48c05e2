# ruff: noqa: F401 - imported for the children that are forked from here
"""What the warm server imports before it forks: everything slow, and nothing that touches a device.

No tensor operation and no CUDA query may run here: a fork of a process that has asked whether there is CUDA
may not be able to use CUDA. `torch._dynamo` is what the first optimizer of a process imports (6 s); scikit-learn's
data sets cost 6 s more.

A quarter of that was the search for rubbish among the million objects that imports make and keep, so it waits. Frozen,
they are no matter of a child's collector either, which would copy each page that it looks at.
"""

import atexit
import gc

gc.disable()
try:
    import sklearn.datasets
    import torch
    import torch._dynamo
    import torch.fx.experimental.symbolic_shapes  # what a backward pass with a given gradient imports
    import torch.utils.data

    import batchlab.worker.execute
    import batchlab.worker.preflight
finally:  # also where an import fails, which the point's own tells better
    gc.freeze()
    atexit.register(gc.unfreeze)  # or Triton says at the end what it leaked
    gc.enable()
