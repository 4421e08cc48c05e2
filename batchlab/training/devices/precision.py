"""Implements the `precision` option, or refuses it."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from batchlab.errors import BadRequest
from batchlab.printable import listed
from batchlab.training.devices.device import Device
from batchlab.training.gradients import clip

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def dtypes_of(model: nn.Module) -> list[str]:
    """The dtypes of the trainable parameters, such as `float32`, the most frequent first."""
    counts = Counter(str(p.dtype).removeprefix("torch.") for p in model.parameters() if p.requires_grad)
    return [name for name, _ in counts.most_common()]


def of_other_dtypes(model: nn.Module, precision: str) -> Iterator[str]:
    """A sentence about a model that is not of float32: no precision changes the dtype of parameters."""
    if (found := dtypes_of(model)) != ["float32"]:
        yield f"the model's parameters are {listed(found)} and are trained as such: precision={precision} keeps them"


def _run_backward(outputs: Tensor, gradient: Tensor) -> None:
    """`outputs.backward(gradient)`, both of the same shape and type.

    Calls the engine directly if PyTorch exposes it: PyTorch's checks in Python take 27 us of a step of 150.
    """
    engine = getattr(torch.autograd.graph, "_engine_run_backward", None)
    if engine is None:
        outputs.backward(gradient)  # type: ignore[no-untyped-call]
        return
    engine((outputs,), (gradient,), False, False, (), allow_unreachable=True, accumulate_grad=True)


class Precision:
    """The precision of a run's forward and backward passes."""

    def __init__(self, name: str, device: Device) -> None:
        device.refuse_unless_able(name)
        self.name = name
        self.device = device
        self.scaler = torch.amp.GradScaler(device.torch_device.type) if name == "fp16" else None

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Around a run: sets the precision of fp32 products for the run, and restores it afterwards.

        BadRequest if the model's or the data's code has changed it meanwhile: then the run has mixed two precisions.
        """
        tf32 = self.name == "tf32"
        with self.device.fp32(tf32=tf32):
            yield
            if not self.device.fp32_is(tf32=tf32):
                raise BadRequest(
                    f"precision={self.name} was requested, but the code of the model or the data changes PyTorch's "
                    "fp32 precision during the run (torch.set_float32_matmul_precision, allow_tf32 or fp32_precision): "
                    "remove that line, and use precision=tf32 for TF32"
                )

    def prepare(self, optimizer: torch.optim.Optimizer) -> None:
        """Creates state before the first update that the optimizer would leave uninitialised if that update is skipped.

        A fused optimizer also runs if fp16's gradients overflow, and its kernel then writes nothing. PyTorch's fused
        SGD allocates its momentum uninitialised (torch/optim/sgd.py), to be filled by that kernel: a routine overflow
        of the first update, at a scale of 65,536, left garbage in it. Starting from zeros, the first update that is
        applied gives the same as without an overflow: 0 x momentum + gradient.
        """
        if self.scaler is None or not isinstance(optimizer, torch.optim.SGD):
            return
        for group in optimizer.param_groups:
            if not (group.get("fused") and group.get("momentum")):
                continue
            if group.get("dampening"):  # the first update is not damped, but starting from zeros it would be
                raise BadRequest(
                    f"optimizer.dampening={group['dampening']} does not work with precision=fp16 and "
                    "optimizer.fused=true: use optimizer.fused=false"
                )
            for p in group["params"]:
                optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)

    def waiting(self, optimizer: torch.optim.Optimizer) -> str | None:
        """A sentence that explains why every step waits for the device; None if it does not.

        Only the device knows whether fp16's gradients overflowed. The kernels of fused optimizers check it there; for
        the others the host has to wait for it before it calls them (`GradScaler._maybe_opt_step`). Stepping anyway and
        restoring weights and state would not work: Adam, for example, counts its steps on the host.
        """
        skips_on_the_device = getattr(optimizer, "_step_supports_amp_scaling", False)
        if self.scaler is None or skips_on_the_device or self.device.kind == "cpu":
            return None
        return (
            f"precision=fp16 with {type(optimizer).__name__} waits for the device at every step, to know whether the "
            "update is skipped, so its speed is not comparable with other precisions: use optimizer.fused=true, which "
            "does not wait (SGD, Adam, AdamW and Adagrad of torch.optim support it)"
        )

    def forward(self) -> AbstractContextManager[object]:
        """Around a forward pass and its loss."""
        if self.name in AUTOCAST:
            return torch.autocast(self.device.torch_device.type, dtype=AUTOCAST[self.name])
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def full(self) -> Iterator["Precision"]:
        """Around measurements in fp32, whatever the run's precision; yields the precision of their passes."""
        with self.device.fp32(tf32=False):
            yield Precision("fp32", self.device)

    @contextlib.contextmanager
    def evaluation(self, name: str) -> Iterator["Precision"]:
        """Around a validation: in `fp32`, so that precisions are compared by the weights they lead to, or in the `same`
        precision as training's forward passes; yields the precision of its passes."""
        if name == "fp32":
            with self.full() as fp32:
                yield fp32
            return
        # One autocast around all batches: the weights are cast once, not for each batch.
        with self.device.fp32(tf32=self.name == "tf32"), self.forward():
            yield self

    def backward(self, losses: Tensor, weight: float | Tensor) -> None:
        """Adds the gradient of `weight * losses.sum()` to the parameters' gradients, scaled if the precision needs it.

        The weight is a number, or 0-d on the device, which is not waited for. It is passed as the gradient of `losses`,
        shape (terms,), so that neither sum nor product is differentiated.
        """
        scaled = self.scaler.scale(losses) if self.scaler else losses
        # full_like would wait for a tensor's value; for a number it is faster by 1 us of a step of 150.
        if isinstance(weight, Tensor):
            _run_backward(scaled, torch.empty_like(scaled).fill_(weight))
        else:
            _run_backward(scaled, torch.full_like(scaled, weight))

    def update(
        self, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], clip_norm: float | None
    ) -> Tensor | None:
        """Unscales, clips and applies the gradients; returns whether the update was skipped (0-d, on the device).

        None if updates are never skipped. The flag is the scaler's own found-inf, not a decrease of its scale, which
        shows nothing once the scale is 0.
        """
        scaler = self.scaler
        if scaler is None:
            if clip_norm is not None:
                clip(parameters, clip_norm)
            optimizer.step()
            return None
        scaler.unscale_(optimizer)
        skipped: Tensor = sum(scaler._found_inf_per_device(optimizer).values()) > 0
        if clip_norm is not None:
            clip(parameters, clip_norm)
        scaler.step(optimizer)
        scaler.update()
        return skipped

    def loss_scale(self) -> float | None:
        """The scaler's current scale; waits for the device."""
        return self.scaler.get_scale() if self.scaler else None
