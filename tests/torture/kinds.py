"""Every kind of torture, whole or a share of it: an iterator with an entry per injury, None where it was survived."""

import concurrent.futures
import functools
import multiprocessing
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torture import (
    atomic,
    confinement,
    flips,
    kernel,
    kills,
    kth_call,
    mutants,
    pairs,
    power_loss,
    resuming,
    simulated_studies,
    tasks,
)
from torture.comparison import came_to
from torture.faulty import Kind
from torture.forks import shared_out
from torture.sweeps import GRID
from torture.tiny import folder_of, tiny, train

Results = Iterator[str | None]
SMALL = ("batch_size=16,32",)


@dataclass(frozen=True)
class Amount:
    """How much of it, by what chance, and how many at once."""

    scale: float = 1.0
    seed: int = 0
    jobs: int = 1

    def of(self, whole: int) -> int:
        return max(1, round(whole * self.scale))


def system_calls(scratch: Path, amount: Amount) -> Results:
    """Every system call of a run and its study fails, in every way; a third as many again fail while recovering."""
    with kth_call.quick():
        reference = kth_call.expected(scratch)
        cases = list(kth_call.sample(amount.scale, reference, amount.seed))

        def survives(case: tuple[int, Kind, tuple[int, Kind] | None]) -> str | None:
            at, kind, then = case
            return kth_call.survives(at, kind, reference, scratch, then=then)

        yield from shared_out(cases, survives, amount.jobs)


def replacements(scratch: Path, amount: Amount) -> Results:
    """Every system call of one file's replacement fails, in every way."""
    del amount
    yield from atomic.faults(scratch)


def power_losses(scratch: Path, amount: Amount) -> Results:
    """The power goes after every change to the disk; what was not synced is there, is not, or is half there."""
    with kth_call.quick():
        reference, run = kth_call.expected(scratch), power_loss.recorded(scratch)
        cases = list(power_loss.sample(amount.scale, run, amount.seed))
        yield from shared_out(cases, lambda case: power_loss.survives(*case, run, reference, scratch), amount.jobs)


def flipped_bits(scratch: Path, amount: Amount) -> Results:
    """A bit of a checkpoint is another."""
    yield from flips.bit_flips(flips.stopped(scratch), amount.of(3000), amount.seed)


def truncations(scratch: Path, amount: Amount) -> Results:
    """A checkpoint ends early, at every byte."""
    yield from flips.truncations(flips.stopped(scratch), max(1, round(1 / amount.scale)))


def damaged_files(scratch: Path, amount: Amount) -> Results:
    """A bit of a record or a journal is flipped: nothing crashes, and a resumed run ends with the same result."""
    with kth_call.quick():
        run, config = flips.stopped(scratch), tiny(scratch / "undisturbed")
        train(config)
        expected, draw = came_to(folder_of(config)), random.Random(amount.seed)
        folder = folder_of(tiny(run.place))
        for name in ("metrics.jsonl", "record.json"):
            content = (folder / name).read_bytes()
            for _ in range(amount.of(150)):
                yield flips.reads(run, scratch, name, flips.flipped(content, draw))
            for _ in range(amount.of(100)):
                yield flips.goes_on(run, scratch, name, flips.flipped(content, draw), expected)


def resumes(scratch: Path, amount: Amount) -> Results:
    """Stopped after every step, killed after every checkpoint, and resumed from there."""
    with kth_call.quick():
        for config, stops in resuming.cases(amount.scale):
            expected, steps = resuming.undisturbed(config, scratch)
            cases = [stop for stop in stops if sum(stop) < steps]
            if amount.jobs == 1:
                yield from (resuming.exact(config, stop, expected, scratch) for stop in cases)
            else:
                yield from _resumed(config, cases, expected, scratch, amount.jobs)
        for config in resuming.TRAPS[:: max(1, round(0.2 / amount.scale))]:
            count, wrong = resuming.exact_after_each_checkpoint(config, scratch)
            yield from [*wrong, *[None] * (count - len(wrong))]


def _resumed(
    config: dict[str, object], cases: list[tuple[int, ...]], expected: dict[str, object], scratch: Path, jobs: int
) -> Results:
    yield from shared_out(cases, lambda stop: resuming.exact(config, stop, expected, scratch), jobs)


def tasks_killed(scratch: Path, amount: Amount) -> Results:
    """Every kind of task, killed at random moments of its run, up to three times, and resumed."""
    with kth_call.quick():
        for name, config in tasks.KINDS.items():
            draw = random.Random(f"{amount.seed} {name}")
            expected, _ = resuming.undisturbed(config, scratch)
            seconds = resuming.seconds_of(config, scratch)
            cases = [resuming.moments(seconds, draw) for _ in range(amount.of(20))]
            yield from _killed(config, cases, expected, scratch, amount.jobs)


def _killed(
    config: dict[str, object], cases: list[tuple[float, ...]], expected: dict[str, object], scratch: Path, jobs: int
) -> Results:
    yield from shared_out(cases, lambda delays: resuming.exact_after_kills(config, delays, expected, scratch), jobs)


def studies_simulated(scratch: Path, amount: Amount) -> Results:
    """Studies in which batch sizes do nothing, and one in which they do: claims are supported at their level."""
    del scratch
    work = functools.partial(simulated_studies.found, studies=amount.of(2000), seed=amount.seed)
    with concurrent.futures.ProcessPoolExecutor(amount.jobs, multiprocessing.get_context("fork")) as pool:
        for found in pool.map(work, simulated_studies.CASES):
            sys.stderr.write(f"{found}\n")
            yield str(found) if found.wrong else None


def planted_bugs(scratch: Path, amount: Amount) -> Results:
    """Each must be noticed."""
    with kth_call.quick():
        chosen = mutants.MUTANTS[:: max(1, round(1 / amount.scale))]

        def noticed(case: tuple[str, Callable[[], mutants.Mutant], mutants.Check]) -> str | None:
            name, mutant, check = case
            found = mutants.killed(mutant, check, scratch)
            return found and f"{name}: {found}"

        yield from shared_out(chosen, noticed, amount.jobs)


def kill_9(scratch: Path, amount: Amount) -> Results:
    """Real sweeps of 12 points, killed at random moments, ten times each; then they are done."""
    expected, draw = kills.undisturbed(scratch / "undisturbed"), random.Random(amount.seed)
    seeds = [draw.randrange(2**32) for _ in range(amount.of(7))]

    def one(seed: int) -> list[str | None]:
        folder, done = scratch / f"sweep{seed}", dict[str, bytes]()
        found = list(kills.killed_again_and_again(folder, 10, done, random.Random(seed)))
        return [*found, kills.comes_to(folder, expected, done)]

    with concurrent.futures.ThreadPoolExecutor(amount.jobs) as pool:
        for found in pool.map(one, seeds):
            yield from found


def signals(scratch: Path, amount: Amount) -> Results:
    """Ctrl-C, Ctrl-C twice, SIGTERM, SIGUSR1 in turn, and to the end; a kill that leaves no orphan."""
    yield kills.leaves_nobody(scratch / "killed")
    expected = kills.undisturbed(scratch / "undisturbed")
    for number in range(amount.of(3)):
        chance = random.Random(f"{amount.seed} {number}")
        yield from kills.asked_to_stop(scratch / f"sweep{number}", expected, chance)


def two_at_once(scratch: Path, amount: Amount) -> Results:
    """Two sweeps over one study."""
    expected = kills.undisturbed(scratch / "undisturbed")
    for number in range(amount.of(4)):
        yield from pairs.together(scratch / f"pair{number}", expected, *GRID)


def kernel_errors(scratch: Path, amount: Amount) -> Results:
    """Files that may not grow, a full disk, no memory, folders that vanish or may not be written."""
    expected = kills.undisturbed(scratch / "undisturbed", *SMALL)
    sizes = (100, 600, 2000, 3000, 5000, 8000, 12000, 20000)
    for most in sizes[: amount.of(len(sizes))]:
        yield kernel.file_too_large(scratch / f"limit{most}", most, expected, *SMALL)
    disks = (8, 24, 48, 72, 100)
    try:
        for kib in disks[: amount.of(len(disks))]:
            yield kernel.disk_full(scratch / f"disk{kib}", kib, expected, *SMALL)
    except kernel.NotHere as why:
        sys.stderr.write(f"kernel errors: skipped: {why}\n")
    yield kernel.out_of_memory(scratch / "memory")
    for what in ("study", "run"):
        yield kernel.removed(scratch / f"removed-{what}", what, expected, *SMALL)
    yield kernel.linked_to_a_full_device(scratch / "link", *SMALL)
    yield from kernel.not_to_be_written(scratch / "refused", *SMALL)


def bad_inputs(scratch: Path, amount: Amount) -> Results:
    """Command lines that are wrong: one line each, and the right exit code."""
    del scratch, amount
    from bad_inputs import run_all

    count, wrong = run_all()
    yield from [*wrong, *[None] * (count - len(wrong))]


def writes_outside(scratch: Path, amount: Amount) -> Results:
    """Every write of a whole run, seen by an audit hook, is below runs_dir."""
    del amount
    count, outside = confinement.written_outside(scratch / "runs")
    yield from [*outside, *[None] * (count - len(outside))]


def secrets(scratch: Path, amount: Amount) -> Results:
    """Every file of a sweep whose environment holds a secret, searched for it."""
    del amount
    count, output = confinement.told_secrets(scratch / "sweep")
    yield from [*output, *[None] * (count - len(output))]


ALL: dict[str, Callable[[Path, Amount], Results]] = {
    "system calls": system_calls,
    "replacements": replacements,
    "power losses": power_losses,
    "flipped bits": flipped_bits,
    "truncations": truncations,
    "damaged files": damaged_files,
    "resumes": resumes,
    "tasks killed": tasks_killed,
    "kill -9": kill_9,
    "signals": signals,
    "two at once": two_at_once,
    "kernel errors": kernel_errors,
    "bad inputs": bad_inputs,
    "writes outside": writes_outside,
    "secrets": secrets,
    "simulated studies": studies_simulated,
    "planted bugs": planted_bugs,
}
