"""Checks that a whole step runs in each precision without a wait, and in the requested precision."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

from smoke.runner import LeftOutError, check, is_real_gpu, wants
from smoke.tasks import CNN, GPT, parts_of

OPTIMIZERS = {"sgd": "0.05", "adamw": "0.001"}  # with a learning rate that suits each


@contextlib.contextmanager
def no_wait(device: str) -> Iterator[None]:
    """Inside, PyTorch raises an error if the host would wait for the device."""
    import torch

    if not is_real_gpu(device):
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def stepping(device: str, *words: str, steps: int = 6) -> dict[str, Any]:
    """Two steps, and more that must not wait; the loss before and after."""
    made = parts_of(device, "batch_size=64", f"steps={steps}", *words)
    with made.state.precision.training():
        step, batches = made.update, iter(made.batches())
        outcomes = [step(next(batches)) for _ in range(2)]  # loads kernels and creates state
        made.state.device.drain()
        with no_wait(device):
            outcomes += [step(batch) for batch in batches]
        made.state.device.drain()
    losses = [float(o.loss_sum) / float(o.count) for o in outcomes]
    wants(all(map(math.isfinite, losses)), "a loss is not finite", losses=losses)
    return {"losses": losses, "skipped": [o.skipped is not None and bool(o.skipped) for o in outcomes]}


def _stepping(precision: str, optimizer: str) -> Callable[[str], dict[str, Any]]:
    def body(device: str) -> dict[str, Any]:
        if precision == "tf32" and not device.startswith("cuda"):
            raise LeftOutError("tf32 needs an NVIDIA GPU")
        words = (f"precision={precision}", f"optimizer={optimizer}", f"lr={OPTIMIZERS[optimizer]}")
        return stepping(device, *words, "clip_norm=1.0")

    body.__name__ = f"steps_{precision}_{optimizer}"
    return body


for _precision in ("fp32", "tf32", "bf16", "fp16"):
    for _optimizer in OPTIMIZERS:
        check(f"a step in {_precision} with {_optimizer} never waits for the device")(_stepping(_precision, _optimizer))


@check("a step in fp16 with an optimizer that is not fused never waits for the device")
def steps_fp16_unfused(device: str) -> dict[str, Any]:
    return stepping(device, "precision=fp16", "optimizer.fused=false", "lr=0.05")


@check("accumulated steps of a CNN and a GPT in bf16 never wait for the device")
def steps_accumulated(device: str) -> dict[str, Any]:
    cnn = stepping(device, *CNN, "precision=bf16", "micro_batch_size=24", steps=4)
    gpt = stepping(device, *GPT, "precision=bf16", "accumulate=4", "batch_size=16", steps=4)
    return {"cnn": cnn, "gpt": gpt}


@check("after a first update that overflows in fp16, fused SGD is where unfused SGD is")
def first_overflow(device: str) -> dict[str, Any]:
    import torch

    weights = {}
    for fused in ("true", "false"):
        words = ("precision=fp16", f"optimizer.fused={fused}", "deterministic=true", "lr=0.01")  # fills memory with nan
        made = parts_of(device, "batch_size=64", "steps=5", *words)
        first = next(p for p in made.state.model.parameters() if p.dim() > 1)
        hook = first.register_hook(lambda gradient: gradient * math.inf)
        skipped = []
        for batch in made.batches():
            skipped.append(bool(made.update(batch).skipped))
            hook.remove()
        wants(skipped == [True, False, False, False, False], "not the first update alone overflowed", skipped=skipped)
        weights[fused] = torch.cat([p.detach().flatten() for p in made.state.model.parameters()]).double().cpu()
    apart = float((weights["true"] - weights["false"]).norm() / weights["false"].norm())
    wants(apart < 1e-4, "fused and unfused end apart", relative_difference=apart)
    return {"relative_difference": apart}


TF32_ERROR = 5e-5  # relative to float64: fp32 stays below (cuDNN may take Winograd), the 10 bits of TF32 do not


def _errors(made: Any, operation: Callable[..., Any], *shapes: tuple[int, ...]) -> dict[str, float]:
    """The error of an operation relative to float64 in a run, and in its validation."""
    import torch

    generator = torch.Generator().manual_seed(0)
    operands = [torch.randn(*shape, generator=generator) for shape in shapes]
    exact = operation(*(t.double() for t in operands))
    here = [t.to(made.state.device.torch_device) for t in operands]

    def error() -> float:
        return float((operation(*here).double().cpu() - exact).norm() / exact.norm())

    precision, errors = made.state.precision, {}
    with precision.training():
        errors["training"] = error()
        with precision.full():
            errors["validation"] = error()
        errors["training again"] = error()
    return errors


def _as_requested(device: str, operation: Callable[..., Any], *shapes: tuple[int, ...]) -> dict[str, Any]:
    import torch

    found = {}
    for precision in ("fp32", "tf32") if is_real_gpu(device) else ("fp32",):
        if device.startswith("cuda"):  # a user's code may have enabled TF32, by the old names or the new one
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        errors = found[precision] = _errors(parts_of(device, f"precision={precision}"), operation, *shapes)
        wants(errors["validation"] < TF32_ERROR, f"validation of {precision} is not in fp32", **errors)
        for when in ("training", "training again"):
            is_fp32 = errors[when] < TF32_ERROR
            wants(is_fp32 == (precision == "fp32"), f"precision={precision} is not what runs", **errors)
    return found


@check("matrix products run in fp32 or TF32 as requested, by their error against float64")
def tf32_in_matrix_products(device: str) -> dict[str, Any]:
    import torch

    return _as_requested(device, torch.matmul, (256, 512), (512, 256))


@check("convolutions run in fp32 or TF32 as requested, by their error against float64")
def tf32_in_convolutions(device: str) -> dict[str, Any]:
    import torch

    return _as_requested(device, torch.nn.functional.conv2d, (8, 64, 16, 16), (64, 64, 3, 3))


@check("deterministic=true: a CNN trained twice has the same bits")
def deterministic_cnn(device: str) -> dict[str, str]:
    return _twice(device, *CNN, "data.crop=4", "data.flip=true")


@check("deterministic=true: a GPT trained twice has the same bits")
def deterministic_gpt(device: str) -> dict[str, str]:
    return _twice(device, *GPT, "batch_size=16")


def _twice(device: str, *words: str) -> dict[str, str]:
    from batchlab.training.data.fingerprints import weights_fingerprint

    prints = []
    for _ in range(2):
        made = parts_of(device, "steps=4", "deterministic=true", *words)
        for batch in made.batches():
            made.update(batch)
        prints.append(weights_fingerprint(made.state.model))
    wants(prints[0] == prints[1], "the weights differ", prints=prints)
    return {"weights": prints[0]}
