"""What the warm server imports before it forks: everything slow, and nothing that touches a device.

No tensor operation and no CUDA query may run here: a fork of a process that has asked `torch.cuda.is_available()`
may not be able to use CUDA. `torch._dynamo` is what the first optimizer of a process imports (6-9 s); scikit-learn's
data sets cost 6 s more.
"""

import batchlab.preflight
import batchlab.run  # noqa: F401
