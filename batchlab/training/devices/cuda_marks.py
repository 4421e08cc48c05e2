"""High-water marks of PyTorch's allocator of CUDA, as training's own."""

from collections.abc import Mapping

import torch

from batchlab.training.devices.device import GROWTH

ALLOCATED, RESERVED = "memory/peak_allocated_bytes", "memory/peak_reserved_bytes"


class CudaMarks:
    """The allocator's marks: `allocated` is what tensors held, `reserved` what PyTorch took from the device.

    PyTorch keeps what is freed, so a measurement that takes more than training does leaves `reserved` raised: giving
    it back would make training pay for getting its own anew. From then on `reserved` is training's mark from before,
    plus what its tensors have risen by since.
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
        torch.cuda.empty_cache()  # or training would be charged with what was taken before it
        torch.cuda.reset_peak_memory_stats(self.device)

    def resume(self, marks: Mapping[str, int]) -> None:
        raised = torch.cuda.memory_reserved(self.device) > marks[RESERVED]
        self._before = (marks[RESERVED], marks[ALLOCATED]) if raised else None
        torch.cuda.reset_peak_memory_stats(self.device)

    def keep_earlier_marks(self) -> None:
        """The allocator's own count is as good in a process that goes on."""


class CudaPeaks(CudaMarks):
    """Beside them the growth of `allocated` over the start of training: without the weights and the sets, which were
    there before."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._at_start = 0
        self._stands = False

    def read(self) -> dict[str, int]:
        marks = super().read()
        return marks if self._stands else {**marks, GROWTH: max(0, marks[ALLOCATED] - self._at_start)}

    def reset(self) -> None:
        super().reset()
        self._at_start = torch.cuda.memory_allocated(self.device)

    def keep_earlier_marks(self) -> None:
        """A process that goes on begins with the optimizer's state, which is growth."""
        self._stands = True
