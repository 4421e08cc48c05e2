"""Gives a process the machine that its environment names (`faked_cuda.environment`), as soon as it needs one.

Python imports this when it starts, before anything else; forked workers inherit what it did. PyTorch is not imported
here: a parent that imports none must not.
"""

import importlib.abc
import importlib.machinery
import json
import os
import sys
from collections.abc import Sequence
from types import ModuleType

DEVICES = "batchlab.training.devices.cuda"


class _WhenDevicesComeIn(importlib.abc.MetaPathFinder):
    """Lets `batchlab.training.devices.cuda` be imported as ever, and changes it before anybody has it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != DEVICES:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        assert spec is not None
        assert spec.loader is not None
        run = spec.loader.exec_module

        def run_and_change(module: ModuleType) -> None:
            run(module)
            machine = json.loads(os.environ["BATCHLAB_TESTS_CUDA"])
            machine.pop("processes", None)  # only NVML tells of them
            if machine.pop("kind") == "simulated":
                from simulated_device import SimulatedCuda

                _for_ever.append(SimulatedCuda(**machine).installed(module))
            else:
                from faked_cuda import Cuda

                _for_ever.append(Cuda(**machine).installed())
            _for_ever[-1].__enter__()

        spec.loader.exec_module = run_and_change  # type: ignore[method-assign]
        return spec


_for_ever: list = []  # what was entered, and is never left
if "BATCHLAB_TESTS_CUDA" in os.environ:
    sys.meta_path.insert(0, _WhenDevicesComeIn())
