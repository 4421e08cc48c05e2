"""batchlab: how does the batch size affect training, and which one should I use?"""

from batchlab.errors import BadRequest
from batchlab.task import Task

__version__ = "0.1.0"
__all__ = ["BadRequest", "Task", "__version__"]
