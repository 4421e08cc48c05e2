"""The result of `batchlab find` in sentences: size, prediction, memory, throughput knee, and what to type next."""

import math
from collections.abc import Iterable, Iterator

from batchlab.printable import NOTHING, command_line, counted, number, printable
from batchlab.recording.masking import masked_overrides
from batchlab.science.memory.largest_fit import Found, Outcome, SearchStatus, busy_shares, line_through, out_of_order
from batchlab.science.memory.memory_model import Account, MemoryModel
from batchlab.science.scaling.knee import LAUNCH_BOUND, Knee, launch_bound
from batchlab.sweep.find.search import Search
from batchlab.worker.probing import HEADROOM

KIB, MIB = 2**10, 2**20
OUTCOMES = {
    Outcome.FITS: "fits",
    Outcome.OOM: "out of memory",
    Outcome.RETRIES: "at the limit",
    Outcome.KERNEL_LIMIT: "kernel limit",
    Outcome.UNCLEAR: "unclear",
    Outcome.FAILED: "failed",
}
NOT_ALONE = "Throughput knee: not resolved, since other points used the machine at the same time."


def sentences(search: Search) -> Iterator[str]:
    """The result of a finished search, a line for each fact."""
    found = search.found
    if found is None:
        return
    yield _of_the_limit(search)
    if search.exact:
        yield "Freed memory was counted as free; a run on this CPU keeps it, and can take twice as much."
    if found.fault is not None:
        yield f"The search failed at {found.fault.size:,}, not from a lack of memory: {printable(found.fault.reason)}"
    elif found.largest is None:
        yield _nothing_fits(found)
    else:
        yield from _of_what_fits(search, found, found.largest)
    yield f"Saved in {printable(search.file)}."
    if search.status is SearchStatus.FOUND:
        yield f"Next: {_next(search)}"


def mib(size: float | None) -> str:
    """Bytes in MiB, without the unit."""
    return NOTHING if size is None else number(size / MIB, ",.1f" if size < 1000 * MIB else ",.0f")


def _of_what_fits(search: Search, found: Found, largest: int) -> Iterator[str]:
    yield _of_the_largest(search, found, largest)
    yield _of_the_prediction(search, found)
    if (line := line_through(search.probes)) is not None:
        yield _of_the_line(line)
    if search.account is not None:
        yield _of_the_account(search.account)
        most = search.account.at_most(search.allowed or math.inf, accumulate=search.accumulate)
        if math.isfinite(most):
            yield f"So more than {most:,.0f} cannot fit: temporary memory comes on top of these counts."
    if search.knee is not None:
        yield _of_the_knee(search.knee) if search.alone else NOT_ALONE
        yield from _of_the_launches(search)
    if search.n_train is not None and search.n_train < largest * search.accumulate:
        yield f"The data has {search.n_train:,} training examples: larger batches repeat them."
    if found.unsteady:
        yield f"At the limit the outcome varies: {_sizes(found.unsteady)} fitted once and failed once."
    if holes := out_of_order(search.probes if search.exact else search.as_runs):
        yield f"Memory does not rise monotonically: {_sizes(holes)} did not fit, although larger sizes did."


def _of_the_limit(search: Search) -> str:
    if search.limit_given:
        limit = f"memory_limit is {mib(search.limit)} MiB"
    elif search.config.device == "cpu":
        limit = f"This machine has {mib(search.limit)} MiB available now"
    else:
        limit = "No memory_limit was given, so the limit is the free memory of the device"
    had = f"{HEADROOM:.0%} of it was kept free: a probe could use {mib(search.allowed)} MiB on {search.config.device}."
    if search.limit is not None and search.allowed is not None and search.config.device != "cpu":
        taken = int(search.limit * (1 - HEADROOM)) - search.allowed
        had += f" CUDA and its libraries take another {mib(taken)} MiB." if taken > 0 else ""
    return f"{limit}. {had}"


def _nothing_fits(found: Found) -> str:
    if any(probe.fits for probe in found.probes):
        return "Nothing fits: no size fitted twice."
    smallest = min(found.probes, key=lambda probe: probe.size)
    if smallest.phase == "data":
        return f"Nothing fits: the data alone do not fit ({printable(smallest.reason)})."
    where = f"in {smallest.phase}: " if smallest.phase else ""
    text = f"Nothing fits: not even a micro-batch of {counted(smallest.size, 'example')}"
    return f"{text} ({where}{printable(smallest.reason)})."


def _of_the_largest(search: Search, found: Found, largest: int) -> str:
    batch = f" (batch_size={largest * search.accumulate})" if search.accumulate > 1 else ""
    text = f"Largest micro-batch: {largest:,}{batch}. It fitted twice, each time for three steps and a validation; "
    larger = found.larger
    if larger is None:
        return text + f"no size above at_most={search.at_most} was tried."
    where = f" in {larger.phase}" if larger.phase else ""
    return text + f"{larger.size:,} did not ({OUTCOMES[larger.outcome]}{where})."


def _of_the_prediction(search: Search, found: Found) -> str:
    predicted, error = found.predicted, found.error
    if predicted is None and found.larger is None:
        return f"No prediction was made: the sizes that were tried reach at_most={search.at_most}, and all of them fit."
    if predicted is None:
        return "No prediction from the small probes: their memory did not grow with the micro-batch."
    doubt = "two probes give no error bars"
    if predicted.low is not None and predicted.high is not None:
        high = "not resolved above" if math.isinf(predicted.high) else f"{predicted.high:,.0f}"
        doubt = f"95%: {predicted.low:,.0f} to {high}"
    text = f"Predicted beforehand, from probes of {_sizes(found.predicted_from)}: {predicted.size:,} ({doubt})"
    if error is None:
        return text + "."
    return f"{text}, {abs(error):.1%} too {'high' if error > 0 else 'low'}."


def _of_the_line(line: MemoryModel) -> str:
    scatter = "" if line.scatter is None else f", residual SD {mib(line.scatter)} MiB"
    fitted = f"fitted to {counted(line.probes, 'probe')}{scatter}"
    return f"Memory: {mib(line.fixed)} MiB + {line.per_example / KIB:,.1f} KiB x micro-batch ({fitted})."


def _of_the_account(account: Account) -> str:
    held = {
        "weights": account.weights,
        "gradients": account.gradients,
        "optimizer state": account.optimizer_state,
        "buffers": account.buffers,
        "data": account.data,
    }
    counts = ", ".join(f"{name} {number(size / MIB, '.3g')}" for name, size in held.items())
    saved = number(account.saved.per_example / KIB, ",.4g")
    return f"Counted from the tensors, in MiB: {counts}; saved for backward {saved} KiB per example."


def _of_the_knee(knee: Knee) -> str:
    doubt = "not resolved by the timed steps"
    if knee.low is not None and knee.high is not None:
        doubt = f"95%: {knee.low:,} to {knee.high:,}" if knee.low < knee.high else "95%: only this one of those tried"
    best = f"{knee.best_speed:,.0f} examples/s at {knee.best_size:,}"
    return f"Throughput knee: {knee.size:,} ({doubt}), the smallest size tried within 10% of the best, {best}."


def _of_the_launches(search: Search) -> Iterator[str]:
    bound = launch_bound(busy_shares(search.as_runs))
    if bound:
        sizes = ", ".join(f"{size:,} ({share:.0%})" for size, share in bound.items())
        yield (
            f"Launch-bound (device busy for less than {LAUNCH_BOUND:.0%} of the time): {sizes}. There the host, which "
            "launches the kernels, limits the speed: a larger micro-batch needs fewer launches per example, and its "
            "gain says nothing about the device."
        )


def _next(search: Search) -> str:
    """The command of a sweep over the sizes that fit."""
    largest = (search.found.largest if search.found else None) or 1
    most = min(largest * search.accumulate, search.n_train or largest)
    top = most.bit_length() - 1
    powers = [2**exponent for exponent in range(top % 2, top + 1, 2)][-4:]  # factors of 4: covers the whole range
    sizes = [size for size in powers if size >= 2 * search.accumulate] or [most]
    overrides = [override.lstrip("+") for override in masked_overrides(search.overrides)]
    return command_line(["batchlab", "sweep", f"batch_size={','.join(map(str, sizes))}", *overrides])


def _sizes(sizes: Iterable[int]) -> str:
    return ", ".join(f"{size:,}" for size in sizes)
