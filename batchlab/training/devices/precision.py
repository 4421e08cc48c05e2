"""Precisions: the one place where a precision is honoured or refused."""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from batchlab.errors import BadRequest
from batchlab.training.devices.device import Device

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


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

    def __init__(self, name: str, device: Device) -> None:
        device.refuse_unless_able(name)
        self.name = name
        self.device = device
        self.scaler = torch.amp.GradScaler(device.torch_device.type) if name == "fp16" else None

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Around a run: what an fp32 product runs in is the run's to say, and afterwards what it was.

        BadRequest where the model's or the data's code has switched it meanwhile: then some of the run was in the one
        and some in the other.
        """
        tf32 = self.name == "tf32"
        with self.device.fp32(tf32=tf32):
            yield
            if not self.device.fp32_is(tf32=tf32):
                raise BadRequest(
                    f"precision={self.name} was asked for, and the code of the model or the data switches PyTorch's "
                    "fp32 precision while it runs (torch.set_float32_matmul_precision, allow_tf32 or fp32_precision): "
                    "take that line out, and use precision=tf32 for TF32"
                )

    def prepare(self, optimizer: torch.optim.Optimizer) -> None:
        """Makes, before the first update, what an optimizer would leave unwritten where that update is thrown away.

        A fused optimizer runs also where fp16's gradients overflow, and its kernel then writes nothing. PyTorch's fused
        SGD takes its momentum from uninitialised memory (torch/optim/sgd.py), to be filled by that kernel: a routine
        overflow of the first update, at a scale of 65,536, left garbage to go on from. From zeros the first update that
        counts makes what it would have made: 0 x momentum + gradient.
        """
        if self.scaler is None or not isinstance(optimizer, torch.optim.SGD):
            return
        for group in optimizer.param_groups:
            if not (group.get("fused") and group.get("momentum")):
                continue
            if group.get("dampening"):  # the first update is not damped, and from zeros it would be
                raise BadRequest(
                    f"optimizer.dampening={group['dampening']} cannot be with precision=fp16 and optimizer.fused=true: "
                    "use optimizer.fused=false"
                )
            for p in group["params"]:
                optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)

    def waiting(self, optimizer: torch.optim.Optimizer) -> str | None:
        """Why every step waits for the device, in a sentence; None where none does.

        Whether fp16's gradients overflowed is known on the device alone. The kernels of fused optimizers look there;
        for the others the host has to ask before it calls them (`GradScaler._maybe_opt_step`). Stepping all the same
        and putting weights and state back would not do: Adam, for one, counts its steps on the host.
        """
        skips_on_the_device = getattr(optimizer, "_step_supports_amp_scaling", False)
        if self.scaler is None or skips_on_the_device or self.device.kind == "cpu":
            return None
        return (
            f"precision=fp16 with {type(optimizer).__name__} waits for the device at every step, to know whether the "
            "update is skipped, so its speed does not compare with that of other precisions: optimizer.fused=true "
            "does not wait, which SGD, Adam, AdamW and Adagrad of torch.optim take"
        )

    def forward(self) -> AbstractContextManager[object]:
        """Around a forward pass and its loss."""
        if self.name in AUTOCAST:
            return torch.autocast(self.device.torch_device.type, dtype=AUTOCAST[self.name])
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def full(self) -> Iterator["Precision"]:
        """Around what is measured in fp32 whatever the run's precision is; yields the precision of its passes."""
        with self.device.fp32(tf32=False):
            yield Precision("fp32", self.device)

    @contextlib.contextmanager
    def evaluation(self, name: str) -> Iterator["Precision"]:
        """Around a validation: in `fp32`, so that precisions are compared by the weights they led to, or in the `same`
        precision as training's forward passes; yields the precision of its passes."""
        if name == "fp32":
            with self.full() as fp32:
                yield fp32
            return
        # A cast around all batches: the weights are cast once, not for each.
        with self.device.fp32(tf32=self.name == "tf32"), self.forward():
            yield self

    def backward(self, losses: Tensor, weight: float | Tensor) -> None:
        """Adds the gradient of `weight * losses.sum()` to the parameters', scaled where the precision needs it.

        The weight, a number or 0-d on the device, which is not waited for, goes in as the gradient of `losses`, shape
        (terms,): so neither sum nor product is differentiated.
        """
        scaled = self.scaler.scale(losses) if self.scaler else losses
        # full_like would ask the device for the number; for a number it is faster by 1 us of a step of 150.
        if isinstance(weight, Tensor):
            _run_backward(scaled, torch.empty_like(scaled).fill_(weight))
        else:
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
