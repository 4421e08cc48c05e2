"""High-water marks of PyTorch's CUDA allocator, of training alone."""

from collections.abc import Mapping

import torch

from batchlab.training.devices.device import GROWTH

ALLOCATED, RESERVED = "memory/peak_allocated_bytes", "memory/peak_reserved_bytes"


class CudaMarks:
    """The allocator's marks: `allocated` is what tensors used, `reserved` what PyTorch took from the device.

    PyTorch caches what is freed, so a measurement that needs more than training leaves `reserved` raised; emptying the
    cache would make training allocate its memory again. From then on `reserved` is training's earlier mark plus the
    growth of `allocated` since.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._before: tuple[int, int] | None = None  # reserved and allocated, before a measurement raised `reserved`

    def read(self) -> dict[str, int]:
        allocated = torch.cuda.max_memory_allocated(self.device)
        reserved = torch.cuda.max_memory_reserved(self.device)
        if self._before is not None:
            reserved = self._before[0] + max(0, allocated - self._before[1])
        return {ALLOCATED: allocated, RESERVED: reserved}

    def reset(self) -> None:
        torch.cuda.empty_cache()  # or training would be charged for what was reserved before it
        torch.cuda.reset_peak_memory_stats(self.device)

    def pause(self) -> None:
        """Nothing to do: the allocator counts what tensors use."""

    def resume(self, marks: Mapping[str, int]) -> None:
        raised = torch.cuda.memory_reserved(self.device) > marks[RESERVED]
        self._before = (marks[RESERVED], marks[ALLOCATED]) if raised else None
        torch.cuda.reset_peak_memory_stats(self.device)

    def keep_earlier_marks(self) -> None:
        """Nothing to do: the allocator's own count is valid in a resumed run too."""


class CudaPeaks(CudaMarks):
    """Also the growth of `allocated` since the start of training: without the weights and the sets, which were there
    before."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._at_start = 0
        self._frozen = False

    def read(self) -> dict[str, int]:
        marks = super().read()
        return marks if self._frozen else {**marks, GROWTH: max(0, marks[ALLOCATED] - self._at_start)}

    def reset(self) -> None:
        super().reset()
        self._at_start = torch.cuda.memory_allocated(self.device)

    def keep_earlier_marks(self) -> None:
        """A resumed run begins with the optimizer's state in memory, which counts as growth."""
        self._frozen = True
