"""The configuration: one table of options, the values that text becomes, and how two configurations are compared."""

from batchlab.config.border import Request, from_dict, from_hydra, is_folder_name, to_dict
from batchlab.config.goals import BUDGET_UNITS, Budget, Target
from batchlab.config.key import key
from batchlab.config.options import option_names
from batchlab.config.published import Published
from batchlab.config.run import RunConfig, target_name
from batchlab.config.sweep import SweepConfig, one_sweep

__all__ = [
    "BUDGET_UNITS",
    "Budget",
    "Published",
    "Request",
    "RunConfig",
    "SweepConfig",
    "Target",
    "from_dict",
    "from_hydra",
    "is_folder_name",
    "key",
    "one_sweep",
    "option_names",
    "target_name",
    "to_dict",
]
