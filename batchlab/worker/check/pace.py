"""How fast the data comes."""

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
LONG_SECONDS = 0.05  # for a pass of few examples: then more of them tell no more


def speed(passes: Passes, sample: Sample) -> Iterator[Finding]:
    """Whether reading an example takes longer than learning from it."""
    step = _seconds(passes.losses, passes.batch)
    if step * length(passes.batch) < LONG_SECONDS:
        step = min(_seconds(passes.losses, sample.train) for _ in range(ROUNDS))
    if not sample.read_seconds:
        yield ok("speed", f"the data is tensors already; a forward and backward pass takes {_shown(step)} an example")
        return
    told = f"reading takes {_shown(sample.read_seconds)} an example, a forward and backward pass {_shown(step)}"
    whole = sample.read_seconds * (sample.n_train + sample.n_val)
    resident = example_bytes(sample.train) * sample.n_train <= RESIDENT_BYTES and not sample.is_random
    if resident and whole > SLOW_SECONDS:
        yield better(
            "speed",
            f"slow data: {told}; reading it all, {whole:,.0f} s, comes before every point of a sweep",
            "decode it once, keep the tensors with torch.save, and let data._target_ load those",
        )
    elif not resident and sample.read_seconds > step:
        yield better(
            "speed",
            f"slow data: {told}, so the device waits for it",
            "workers=4 lets processes read ahead; or decode it once to a file that is read fast (a memory map)",
        )
    else:
        yield ok("speed", told)


def _seconds(losses: Losses, batch: Batch) -> float:
    """What a forward and backward pass takes per example; the first one longer than the others."""
    start = time.perf_counter()
    training_pass(losses, batch).completed()
    losses.precision.device.drain()
    return (time.perf_counter() - start) / length(batch)


def _shown(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
