"""Checks memory limits, memory marks and out-of-memory errors."""

from typing import Any

from smoke.runner import check, is_real_gpu, wants
from smoke.tasks import parts_of

MIB = 2**20


def _device(device: str) -> Any:
    return parts_of(device, "batch_size=64", "steps=4").state.device


def _refusal(where: Any, wanted_bytes: int, **how: Any) -> Exception:
    """PyTorch's error for an allocation of `wanted_bytes`."""
    import torch

    try:
        torch.empty(wanted_bytes, dtype=torch.uint8, device=where, **how)
    except Exception as error:
        return error
    raise AssertionError(f"{wanted_bytes / MIB:,.0f} MiB were given")


def _report(error: Exception) -> dict[str, Any]:
    from batchlab.training.devices.out_of_memory import how_it_failed, is_out_of_memory

    status, reason = how_it_failed(error)
    kind = f"{type(error).__module__}.{type(error).__name__}"
    report = {"kind": kind, "text": str(error)[:500], "recognised": is_out_of_memory(error)}
    return report | {"status": str(status), "reason": reason}


@check("a limit of memory refuses what is beyond it, and is gone afterwards", alone=True)
def a_limit_refuses(device: str) -> dict[str, Any]:
    import torch

    one, allowed = _device(device), 256 * MIB
    one.empty_cache()
    with one.limited(allowed):
        report = _report(_refusal(one.torch_device, 2 * allowed))
    wants(report["recognised"], "the refusal is not recognised", **report)
    given = torch.empty(2 * allowed, dtype=torch.uint8, device=one.torch_device)
    return report | {"given_afterwards": given.nbytes}


@check(
    "peaks are training's: what an instrument takes in a pause counts neither as allocated nor as reserved", alone=True
)
def peaks_around_a_pause(device: str) -> dict[str, Any]:
    import torch

    from batchlab.instruments.instrument import Instrument

    large = (512 if is_real_gpu(device) else 64) * MIB
    made = parts_of(device, "batch_size=64", "steps=8")

    class Large(Instrument):
        """Takes much memory: before the first step, in the middle and at the end."""

        every = 256

        def measure(self, state: Any) -> Any:
            torch.ones(large, dtype=torch.uint8, device=state.device.torch_device).sum().item()
            yield from ()

    for _ in made.train(Large()):
        pass
    found = {name.rpartition("/")[2]: value for name, value in made.state.meter.peak_bytes.items()}
    for name, value in found.items():
        wants(value < large, f"{name} holds what was measured in a pause", **found)
    return found


@check("a request beyond the device is recognised as out of memory", alone=True)
def out_of_memory_plain(device: str) -> dict[str, Any]:
    one = _device(device)
    report = _report(_refusal(one.torch_device, 2 * (one.total_bytes() or 2**50)))
    wants(report["recognised"], "it is not recognised", **report)
    return report


@check("the same with expandable_segments, whose allocations go past the CUDA runtime", needs="gpu", alone=True)
def out_of_memory_expandable(device: str) -> dict[str, Any]:
    import torch

    total = _device(device).total_bytes()
    torch.cuda.memory._set_allocator_settings("expandable_segments:True")
    beyond = _report(_refusal("cuda", 2 * total))
    torch.cuda.set_per_process_memory_fraction(256 * MIB / total)
    limited = _report(_refusal("cuda", 512 * MIB))
    wants(beyond["recognised"] and limited["recognised"], "it is not recognised", beyond=beyond, limited=limited)
    return {"beyond_the_device": beyond, "beyond_a_limit": limited}


@check("what CUDA says where host memory cannot be page-locked (not judged)", needs="gpu", alone=True)
def out_of_memory_pinned(device: str) -> dict[str, Any]:
    _device(device)
    return _report(_refusal("cpu", 2**48, pin_memory=True))  # beyond any address space: nothing is locked


@check("the bytes of the device: total and free, and the allocator's retries")
def bytes_of_the_device(device: str) -> dict[str, Any]:
    one = _device(device)
    found = {"total": one.total_bytes(), "free": one.free_bytes()}
    if device.startswith("cuda"):
        wants(0 < found["free"] <= found["total"], "free and total do not fit", **found)
    return found | {"retries": one.allocator_retries()}
