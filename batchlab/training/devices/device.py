"""The interface of a device that a run trains on."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor

from batchlab.training.devices.copies import Copies

# The most memory that training used beyond what was in use when it began, on every device: batches, activations,
# gradients and the optimizer's state; not the weights, the sets in memory, and what libraries had taken by then.
GROWTH = "memory/peak_growth_bytes"


class Peaks(Protocol):
    """High-water marks of memory that can be reset."""

    def read(self) -> dict[str, int]:
        """Peak bytes since `reset`, by measurement name; without those whose earlier mark is kept."""

    def reset(self) -> None:
        """Marks count from here, and growth counts from the current usage."""

    def pause(self) -> None:
        """Called before a measurement, after `read`."""

    def resume(self, marks: Mapping[str, int]) -> None:
        """Called after a measurement has raised them: `marks` are training's, from before it."""

    def keep_earlier_marks(self) -> None:
        """Keeps the marks of an earlier process where this one's would mean something else."""


class Device(Protocol):
    """A device of this process. No other code uses `torch.cuda`, or compares the type of a `torch.device`.

    `kind` is `cpu` or `cuda`; a CUDA device always has an index, which is how this process numbers it and not part of a
    run's identity.
    """

    kind: str
    torch_device: torch.device
    rounding: float  # two identical passes may differ by this much, relative to the largest value

    @property
    def gather_bytes(self) -> int:
        """How many bytes of training batches are gathered, and augmented, at once. Constant during a run, also when it
        is resumed, and the same for every batch size."""

    def prepare(self, *, deterministic: bool) -> None:
        """Makes it the device of this process, before anything is computed."""

    def name(self) -> str | None:
        """The name of the model, from its manufacturer; None if unknown."""

    def uuid(self) -> str | None:
        """Which GPU it is, `GPU-...` also for a MIG instance, which NVML calls `MIG-...`; None for the CPU."""

    def facts(self) -> Mapping[str, Any]:
        """Facts about it for the environment section of a record."""

    def drain(self) -> None:
        """Waits until it has finished all queued work."""

    def busy_seconds(self, work: Callable[[], object], host_seconds: float) -> float | None:
        """How long the device computes for `work`, without the gaps in which it waits for the host.

        `host_seconds` is about how long the host takes to queue it. None if unknown, and always on the CPU.
        """

    def settles(self) -> bool:
        """Whether measuring displaces training's data from its caches, so that a small pass has to restore them."""

    def peaks(self) -> Peaks:
        """The marks of training's memory, for a run's record."""

    def limited_peaks(self) -> Peaks:
        """The marks of the memory that `limited` limits; the first of them is compared with the limit."""

    def limited(self, allowed: int) -> AbstractContextManager[None]:
        """Inside, this process may take `allowed` bytes beyond what it has; BadRequest if fewer are free."""

    def total_bytes(self) -> int | None:
        """The device's own memory, or the limit inside `limited`; None if it uses the host's."""

    def free_bytes(self) -> int | None:
        """How much of it is free now, including use by other processes; None if it uses the host's."""

    def allocator_retries(self) -> int:
        """How often the allocator had to release its cache to serve a request."""

    def empty_cache(self) -> None:
        """Releases what the allocator has cached."""

    def holds(self, tensor: Tensor) -> bool:
        """Whether the tensor lives on a device of this kind."""

    def pins(self) -> bool:
        """Whether data sent to it should be in page-locked memory."""

    def copies(self) -> Copies:
        """What copies host tensors to it."""

    def seed(self, seed: int) -> None:
        """Seeds the generators that a forward pass on it uses: PyTorch's CPU generator and the device's own."""

    def random_state(self) -> Tensor | None:
        """The state of the device's own generator (bytes, on the CPU); None if it uses PyTorch's CPU generator."""

    def set_random_state(self, state: Tensor | None) -> None:
        """The inverse of `random_state`."""

    def refuse_unless_able(self, precision: str) -> None:
        """BadRequest, with the reason, if it cannot train in that precision."""

    def fp32(self, *, tf32: bool) -> AbstractContextManager[None]:
        """Inside, fp32 matrix products, convolutions and recurrent layers run in fp32, or in TF32."""

    def fp32_is(self, *, tf32: bool) -> bool:
        """Whether that is the setting now: a model's own code can change it."""
