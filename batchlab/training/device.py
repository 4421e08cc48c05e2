"""What a run has to do with its device beside training on it: what it is, waiting for it, counting its memory."""

from collections.abc import Mapping
from typing import Any

import torch

from batchlab.training.meter import Meter
from batchlab.training.peaks import peaks_of


def meter_of(device: torch.device) -> Meter:
    """A meter for training on `device`, with the real clock."""
    if device.type == "cuda":
        return Meter(peaks=peaks_of(device), drain=lambda: torch.cuda.synchronize(device))
    return Meter(peaks=peaks_of(device))


def device_facts(device: torch.device) -> Mapping[str, Any]:
    """What a record's environment says of the device and of how PyTorch uses it."""
    facts: dict[str, Any] = {
        "device": str(device),
        "torch_cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "device_name": properties.name,
            "device_bytes": properties.total_memory,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        }
    return facts
