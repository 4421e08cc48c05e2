"""What everything else may ask of the device that a run trains on."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor

from batchlab.training.devices.copies import Copies

# The most that training took beyond what was held when it began, on every device: its batches, activations, gradients
# and the optimizer's state; not the weights, the sets that are held, and what the libraries had taken by then.
GROWTH = "memory/peak_growth_bytes"


class Peaks(Protocol):
    """High-water marks of memory that can be set back."""

    def read(self) -> dict[str, int]:
        """Bytes at the highest since `reset`, by measurement name; without those whose earlier mark stands."""

    def reset(self) -> None:
        """Marks count from here, and growth counts from what is held now."""

    def resume(self, marks: Mapping[str, int]) -> None:
        """A measurement has raised them: `marks` are training's, from before it."""

    def keep_earlier_marks(self) -> None:
        """The marks of an earlier process stand where this one's would mean something else."""


class Device(Protocol):
    """A device of this process. Nobody else names `torch.cuda`, or compares the type of a `torch.device`.

    `kind` is `cpu` or `cuda`; a CUDA device always carries its index, which is how this process numbers it and no part
    of what a run is.
    """

    kind: str
    torch_device: torch.device
    rounding: float  # two equal passes may differ by so much, relative to the largest number

    @property
    def gather_bytes(self) -> int:
        """How many bytes of training batches are gathered, and augmented, at once. The same throughout a run, also when
        it is resumed, and for every batch size."""

    def prepare(self, *, deterministic: bool) -> None:
        """Makes it the device of this process, before anything is computed."""

    def name(self) -> str | None:
        """The model's name, as its maker calls it; None where it is not known."""

    def uuid(self) -> str | None:
        """Which GPU it is, `GPU-...` also for a MIG instance, which NVML calls `MIG-...`; None for the CPU."""

    def facts(self) -> Mapping[str, Any]:
        """What a record's environment says of it."""

    def drain(self) -> None:
        """Waits until it has done what it was given."""

    def busy_seconds(self, work: Callable[[], object], host_seconds: float) -> float | None:
        """How long it works on what `work` asks of it, without the gaps in which it waits for the host to ask.

        `host_seconds` is about how long the host takes to ask. None where that is not known: on the CPU always.
        """

    def settles(self) -> bool:
        """Whether measuring leaves its caches elsewhere, so that a light pass brings training's back."""

    def peaks(self) -> Peaks:
        """The marks of what training takes, for a run's record."""

    def limited_peaks(self) -> Peaks:
        """The marks of the memory that `limited` is about; the first of them is what a limit compares with."""

    def limited(self, allowed: int) -> AbstractContextManager[None]:
        """Inside, this process may take `allowed` bytes beyond what it has; BadRequest where there are not as many."""

    def total_bytes(self) -> int | None:
        """The device's own memory, or what `limited` leaves of it; None where it is the host's."""

    def free_bytes(self) -> int | None:
        """What of it is free now, whoever uses the rest; None where it is the host's."""

    def allocator_retries(self) -> int:
        """How often the allocator had to give its cache back to serve a request."""

    def empty_cache(self) -> None:
        """Gives back what the allocator keeps for later."""

    def holds(self, tensor: Tensor) -> bool:
        """Whether the tensor lives on a device of this kind."""

    def pins(self) -> bool:
        """Whether what is sent to it should lie in page-locked memory."""

    def copies(self) -> Copies:
        """What brings tensors of the host to it."""

    def seed(self, seed: int) -> None:
        """Seeds the generators that a forward pass on it draws from: PyTorch's of the CPU and its own."""

    def random_state(self) -> Tensor | None:
        """Its own generator's state (bytes, on the CPU); None where PyTorch's CPU generator is its own."""

    def set_random_state(self, state: Tensor | None) -> None:
        """The inverse of `random_state`."""

    def refuse_unless_able(self, precision: str) -> None:
        """BadRequest, with the reason, where it cannot train in that precision."""

    def fp32(self, *, tf32: bool) -> AbstractContextManager[None]:
        """Inside, fp32 matrix products, convolutions and recurrent layers run in fp32, or in TF32."""

    def fp32_is(self, *, tf32: bool) -> bool:
        """Whether they do so now: a model's own code can switch it."""
