"""Number formats: the one place where a precision is honoured or refused."""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from batchlab.errors import BadRequest

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
TENSOR_CORES = (8, 0)  # compute capability from which bf16 and tf32 run in hardware (Ampere)


def refuse_unless_able(name: str, device: torch.device) -> None:
    """BadRequest, with the reason, where `device` cannot train in precision `name`."""
    if device.type == "cpu":
        if name == "tf32":
            raise BadRequest("precision=tf32 is a mode of NVIDIA GPUs, and this run is on the CPU: use fp32 or bf16")
        return
    if name in ("bf16", "tf32") and torch.cuda.get_device_capability(device) < TENSOR_CORES:
        major, minor = torch.cuda.get_device_capability(device)
        raise BadRequest(
            f"precision={name} needs compute capability 8.0, and {torch.cuda.get_device_name(device)} has "
            f"{major}.{minor}, where it would be emulated: use fp16 or fp32"
        )


def _run_backward(outputs: Tensor, gradient: Tensor) -> None:
    """`outputs.backward(gradient)`, both of one shape and type.

    Straight to the engine where PyTorch has that door: its checks of the two in Python take 27 us of a step of 150.
    """
    engine = getattr(torch.autograd.graph, "_engine_run_backward", None)
    if engine is None:
        outputs.backward(gradient)  # type: ignore[no-untyped-call]
        return
    engine((outputs,), (gradient,), False, False, (), allow_unreachable=True, accumulate_grad=True)


class Precision:
    """How one run's forward and backward passes count."""

    def __init__(self, name: str, device: torch.device) -> None:
        refuse_unless_able(name, device)
        self.name = name
        self.device = device
        self.scaler = torch.amp.GradScaler(device.type) if name == "fp16" else None
        self._set_tf32(name == "tf32")

    def forward(self) -> AbstractContextManager[object]:
        """Around a forward pass and its loss."""
        if self.name in AUTOCAST:
            return torch.autocast(self.device.type, dtype=AUTOCAST[self.name])
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Around a validation: fp32 for all, so that precisions are compared by the weights they led to."""
        self._set_tf32(False)
        try:
            yield
        finally:
            self._set_tf32(self.name == "tf32")

    def backward(self, losses: Tensor, weight: float) -> None:
        """Adds the gradient of `weight * losses.sum()` to the parameters', scaled where the precision needs it.

        The weight goes in as the gradient of `losses`, shape (terms,): so neither sum nor product is differentiated.
        """
        scaled = self.scaler.scale(losses) if self.scaler else losses
        _run_backward(scaled, torch.full_like(scaled, weight))

    def update(
        self, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], clip_norm: float | None
    ) -> Tensor | None:
        """Unscales, clips and applies the gradients; returns whether the update was skipped (0-d, on the device).

        None where updates are never skipped. The flag is the scaler's own found-inf, not a fall of its scale, which
        stops telling once the scale is 0.
        """
        scaler = self.scaler
        if scaler is None:
            if clip_norm is not None:
                nn.utils.clip_grad_norm_(parameters, clip_norm)
            optimizer.step()
            return None
        scaler.unscale_(optimizer)
        skipped: Tensor = sum(scaler._found_inf_per_device(optimizer).values()) > 0
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, clip_norm)
        scaler.step(optimizer)
        scaler.update()
        return skipped

    def loss_scale(self) -> float | None:
        """The scaler's present scale; waits for the device."""
        return self.scaler.get_scale() if self.scaler else None

    def _set_tf32(self, on: bool) -> None:
        # PyTorch lets cuDNN use TF32 unless told otherwise, so fp32 has to say no.
        if self.device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = on
            torch.backends.cudnn.allow_tf32 = on
