"""`batchlab find`: the largest micro-batch that fits, for each combination of the other options."""

from collections.abc import Sequence
from dataclasses import replace

from batchlab.config import RunConfig
from batchlab.config.options import SOUGHT
from batchlab.errors import BadRequest
from batchlab.host.free_memory import SHARE, available_bytes
from batchlab.printable import counted
from batchlab.recording import disk
from batchlab.science.memory.largest_fit import Probe, SearchStatus, judged, largest_fit, speeds
from batchlab.science.scaling.knee import throughput_knee
from batchlab.science.statistics.uncertainty import Interval
from batchlab.sweep.checks import check_grid, or_on_cpu
from batchlab.sweep.find.find_table import Watcher, comparison, summary
from batchlab.sweep.find.probing import Prober
from batchlab.sweep.find.search import Search
from batchlab.sweep.points import Point, distinguishing, gpu_of, without_duplicates
from batchlab.sweep.processes.interruption import Interruption, watching_signals
from batchlab.sweep.processes.server import WarmServer

AT_MOST = 2**16  # examples of a micro-batch; a bound, so that the search ends
TIMING_SECONDS = 4.0  # of timed steps for a speed; the median of seven or more has an interval
# A placeholder for the size: large, so that config.py accepts any number of micro-batches.
PLACEHOLDER_SIZE = ("batch_size=1000000000000", "micro_batch_size=null")


def find(points: Sequence[Point], *, memory_limit: int | None, at_most: int | None) -> int:
    """Searches every combination, shows and saves the results; 0 if each has a largest size, otherwise 3.

    `points` are composed with `PLACEHOLDER_SIZE`; `memory_limit` is in bytes, `at_most` in examples. BadRequest means
    that nothing was tried.
    """
    return or_on_cpu(points, lambda chosen: _find(chosen, memory_limit, at_most or AT_MOST))[0]


def _find(points: Sequence[Point], memory_limit: int | None, at_most: int) -> int:
    searches = _searches(without_duplicates(points), memory_limit, at_most)
    watcher = Watcher()
    try:
        with watching_signals(then=_give_up) as interruption, WarmServer(gpu_of(points)) as server:
            server.warm_up()
            watcher.say("checking the model and the data")
            for search, facts in zip(searches, check_grid([_small(s.config) for s in searches], server), strict=True):
                if search.config.device != "cpu" and facts.device_name is not None:
                    search.environment["device_name"] = facts.device_name
            for position, search in enumerate(searches, 1):
                watcher.begin(search.label, position, len(searches))
                _run(search, server, watcher)
                watcher.show(summary(search))
    except KeyboardInterrupt:
        for search in (s for s in searches if s.status is SearchStatus.RUNNING and s.probes):
            search.status = SearchStatus.INTERRUPTED
            search.save()
            watcher.say(f"interrupted; {counted(len(search.probes), 'probe')} saved in {search.file}")
        return interruption.exit_code or 130
    if len(searches) > 1:
        watcher.show(comparison(searches))
    return 0 if all(search.status is SearchStatus.FOUND for search in searches) else 3


def _searches(points: Sequence[Point], memory_limit: int | None, at_most: int) -> list[Search]:
    host = int(SHARE * available_bytes()) if any(point.config.device == "cpu" for point in points) else None
    if host is not None and (memory_limit or 0) > host:
        raise BadRequest(
            f"memory_limit is larger than {SHARE:.0%} of this machine's available memory, {host / 2**30:.1f} GiB: use "
            "at most that, or leave it out"
        )
    searches = []
    for point, label in zip(points, distinguishing(points), strict=True):
        limit = host if memory_limit is None and point.config.device == "cpu" else memory_limit
        typed = tuple(o for o in point.overrides if o.partition("=")[0].lstrip("+") not in SOUGHT)
        label = label if len(points) > 1 else ""
        searches.append(Search(point.config, label, typed, limit, memory_limit is not None, host, at_most))
    return searches


def _small(config: RunConfig) -> Point:
    """A point with two examples, to check that the user's model, data and optimizer can be built and run."""
    return Point(replace(config, batch_size=2, accumulate=None, micro_batch_size=None))


def _run(search: Search, server: WarmServer, watcher: Watcher) -> None:
    """Runs one search; every probe is saved as soon as it has finished."""
    disk.make_folder(search.file.parent)
    log = search.file.with_suffix(".log")
    disk.remove(log)  # of an earlier search
    search.save()
    prober = Prober(search.config, server, limit=search.limit, exact=search.exact, log=log)

    def take(probe: Probe) -> None:
        search.probes.append(probe)
        search.account = prober.account
        search.save()
        watcher.probe(probe)

    search.found = largest_fit(prober, at_most=search.at_most, watch=take)
    if search.found.largest is not None:
        _time(search, search.found.largest, server, watcher)
    search.status = search.found.status
    search.save()


def _time(search: Search, largest: int, server: WarmServer, watcher: Watcher) -> None:
    """Measures the speed of each power of two below the largest size, and finds the throughput knee."""
    limit = search.host_bytes if search.exact else search.limit
    prober = Prober(search.config, server, limit=limit, exact=False, log=search.file.with_suffix(".log"))
    watcher.say("timing the sizes that fit")
    for size in (2**exponent for exponent in range(1, (largest - 1).bit_length())):
        if size not in _resolved(search.as_runs):
            search.timings.append(judged(prober(size, TIMING_SECONDS), search.probes))
            search.save()
            watcher.probe(search.timings[-1])
    if measured := _resolved(search.as_runs) or speeds(search.as_runs):
        search.knee = throughput_knee(measured)


def _resolved(probes: Sequence[Probe]) -> dict[int, Interval]:
    """The speeds that have an interval."""
    return {size: speed for size, speed in speeds(probes).items() if speed.low is not None}


def _give_up(interruption: Interruption) -> None:
    raise KeyboardInterrupt
