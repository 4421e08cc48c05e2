"""How fast the data is read."""

import time
from collections.abc import Iterator

from batchlab.task import Batch
from batchlab.training.data.batches import example_bytes, length
from batchlab.training.data.residence import RESIDENT_BYTES
from batchlab.training.losses import Losses
from batchlab.training.passes.contract_passes import training_pass
from batchlab.worker.check.data_sample import SLOW_SECONDS, Sample
from batchlab.worker.check.findings import Finding, better, ok
from batchlab.worker.check.passes import Passes

ROUNDS = 5
LONG_SECONDS = 0.05  # of a pass: long enough to be timed without more examples


def speed(passes: Passes, sample: Sample) -> Iterator[Finding]:
    """Whether reading an example takes longer than learning from it."""
    step = _seconds(passes.losses, passes.batch)
    if step * length(passes.batch) < LONG_SECONDS:
        step = min(_seconds(passes.losses, sample.train) for _ in range(ROUNDS))
    if not sample.read_seconds:
        yield ok("speed", f"the data is tensors already; a forward and backward pass takes {_shown(step)} per example")
        return
    times = f"reading takes {_shown(sample.read_seconds)} per example, a forward and backward pass {_shown(step)}"
    whole = sample.read_seconds * (sample.n_train + sample.n_val)
    resident = example_bytes(sample.train) * sample.n_train <= RESIDENT_BYTES and not sample.is_random
    if resident and whole > SLOW_SECONDS:
        yield better(
            "speed",
            f"slow data: {times}; every point of a sweep first reads all of it, {whole:,.0f} s",
            "decode it once, save the tensors with torch.save, and let data._target_ load them",
        )
    elif not resident and sample.read_seconds > step:
        yield better(
            "speed",
            f"slow data: {times}, so the device waits for data",
            "add workers=4 to read ahead in processes, or decode it once into a file that reads fast (a memory map)",
        )
    else:
        yield ok("speed", times)


def _seconds(losses: Losses, batch: Batch) -> float:
    """Seconds per example of a forward and backward pass; the first call takes longer."""
    start = time.perf_counter()
    training_pass(losses, batch).completed()
    losses.precision.device.drain()
    return (time.perf_counter() - start) / length(batch)


def _shown(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
