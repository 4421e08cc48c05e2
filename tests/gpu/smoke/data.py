"""Checks that data reaches the device unchanged, random streams are kept, and a run resumes exactly."""

from collections.abc import Callable
from typing import Any

from smoke.runner import SIMULATED, LeftOutError, check, is_real_gpu, wants
from smoke.tasks import configured, parts_of


@check("seeding fixes what the device draws, and its random state goes there and back")
def random_numbers(device: str) -> dict[str, Any]:
    import torch

    from batchlab.training.passes.no_trace import leaving_no_trace

    made = parts_of(device, "batch_size=64", "steps=4")
    one = made.state.device

    def drawn() -> Any:
        return torch.rand(1000, device=one.torch_device).cpu()

    one.seed(7)
    first = drawn()
    one.seed(7)
    wants(torch.equal(first, drawn()), "the same seed draws other numbers")
    host, kept = torch.get_rng_state(), one.random_state()
    second = drawn()
    torch.set_rng_state(host)
    one.set_random_state(kept)
    with leaving_no_trace(made.state.model, one):
        drawn()
    wants(torch.equal(second, drawn()), "the random state was not put back")
    return {}


@check("a run that is resumed from its checkpoint ends at the bits of one that was not stopped")
def checkpoint_there_and_back(device: str) -> dict[str, Any]:
    from batchlab.training import checkpoint
    from batchlab.training.data.fingerprints import weights_fingerprint

    words = ("model.dropout=0.1", "steps=8", "precision=fp16", "deterministic=true")
    prints = []
    for stop_at in (None, 4):
        made = parts_of(device, *words)
        for batch in made.batches():
            made.update(batch)
            made.state.step += 1
            made.state.examples += made.config.batch_size
            if made.state.step == stop_at:
                kept = checkpoint.capture(made.state, {}, run_id="r", journal_offset=0, journal_digest="")
                break
        if stop_at is not None:
            made = parts_of(device, *words)
            checkpoint.restore(checkpoint.read(kept), made.state, {})
            for batch in made.batches():
                made.update(batch)
        prints.append(weights_fingerprint(made.state.model))
    wants(prints[0] == prints[1], "the weights differ", prints=prints)
    return {"weights": prints[0]}


@check("streamed by two workers through page-locked memory, every batch arrives whole while the device computes")
def streaming_with_workers(device: str) -> dict[str, Any]:
    if SIMULATED:
        raise LeftOutError("the device is simulated: PyTorch's thread that locks memory needs a real one")
    return _as_held(device, lambda one: _streamed(one, workers=2))


@check("the same, read by the training process")
def streaming_without_workers(device: str) -> dict[str, Any]:
    return _as_held(device, lambda one: _streamed(one, workers=0))


@check("the same, gathered by index from tensors that stay on the host")
def rows_of_the_host(device: str) -> dict[str, Any]:
    return _as_held(device, _on_the_host)


def _rows() -> Any:
    import torch

    return torch.arange(600 * 1024, dtype=torch.float32).reshape(600, 1024)


def _streamed(one: Any, workers: int) -> Any:
    from torch.utils.data import TensorDataset

    from batchlab.training.data.streaming import Streamed

    return Streamed(TensorDataset(_rows()), one, name="train", workers=workers)


def _on_the_host(one: Any) -> Any:
    from batchlab.training.data.host_rows import HostRows

    return HostRows((_rows(),), one)


def _as_held(device: str, made: Callable[[Any], Any]) -> dict[str, Any]:
    """Checks that training gets the same from a set as from the same examples on the device."""
    import torch

    from batchlab.training import assembly
    from batchlab.training.data.batches import Batches
    from batchlab.training.data.trees import tensors

    one = assembly.prepare_process(configured(device))
    real = is_real_gpu(device)
    busy = torch.randn(1024 if real else 64, 1024 if real else 64, device=one.torch_device)
    sums = {}
    for name, data in (("held", (_rows().to(one.torch_device),)), ("other", made(one))):
        kept = []
        total = 9600 if real else 1152
        for (batch,) in Batches(data, micro_batch_sizes=[48], seed=0, total=total, device=one):
            for _ in range(4):  # the device falls behind the host: memory that is released too early is overwritten
                busy = (busy @ busy).clamp(-1, 1)
            (x,) = tensors(batch)
            wants(one.holds(x), "a batch is not on the device", device=str(x.device))
            kept.append((x * 1.0).sum(dim=1))
        sums[name] = torch.cat(kept)
    wants(torch.equal(sums["held"], sums["other"]), "the batches differ")
    return {"batches": len(kept)}


@check("copies from the host run in a stream of their own", needs="gpu", limit=20.0)
def copies_have_a_stream(device: str) -> dict[str, Any]:
    import torch

    from batchlab.training import assembly
    from batchlab.training.data.batches import Batches

    one, found = assembly.prepare_process(configured(device)), {}
    for name, data in (("streamed", _streamed(one, workers=0)), ("by index", _on_the_host(one))):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            for (batch,) in Batches(data, micro_batch_sizes=[48], seed=0, total=2400, device=one):
                (batch[0] * 2).sum()
            one.drain()
        events = [(e.name(), e.device_resource_id()) for e in profile.profiler.kineto_results.events()]
        copies = {stream for event, stream in events if "HtoD" in event}
        kernels = {stream for event, stream in events if "kernel" in event.lower()}
        wants(bool(copies) and bool(kernels), "the profiler saw no copies or no kernels", events=len(events))
        wants(copies.isdisjoint(kernels), f"{name}: copies run where kernels do", copies=copies, kernels=kernels)
        found[name] = {"copies": sorted(copies), "kernels": sorted(kernels)}
    return found
