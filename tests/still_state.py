"""The state of a run that has not been trained."""

from batchlab.config import RunConfig
from batchlab.training import assembly
from batchlab.training.devices.device import Device
from batchlab.training.state import RunState


def state_of(config: RunConfig, device: Device) -> RunState:
    """A run of `config` before its first step."""
    return assembly.assemble(config, assembly.build_data(config, device)).state
