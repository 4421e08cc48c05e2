"""The plug is pulled after every change that a run makes: the same command again must come to the same."""

import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchlab.recording.run_folder import read_record
from torture.forks import in_a_child
from torture.kth_call import Expected, recovers, whole
from torture.power import VARIANTS, Disk, Recorder, image
from torture.tiny import folder_of, tiny


@dataclass(frozen=True)
class Recorded:
    """What one run did to the disk, and after how many changes it had reported that it was done."""

    log: list[tuple[Any, ...]]
    done_at: int


def recorded(scratch: Path) -> Recorded:
    """By a run whose power stays on."""
    place = Path(tempfile.mkdtemp(dir=scratch))

    def work() -> Any:
        recorder = Recorder(place)
        ending = whole(place, recorder)
        assert ending["status"] == "completed"
        return [[*map(_as_json, entry)] for entry in recorder.log]

    ending = in_a_child(work)
    assert ending.code == 0, ending.reported
    log = [tuple(bytes.fromhex(x[0]) if isinstance(x, list) else x for x in entry) for entry in ending.reported]
    # The study's own files come after it.
    done_at = next(i for i, entry in enumerate(log) if ".tensorboard.lock" in entry[1])
    shutil.rmtree(place)
    return Recorded(log, done_at)


def _as_json(value: Any) -> Any:
    return [value.hex()] if isinstance(value, bytes) else value


def sample(scale: float, run: Recorded, seed: int) -> Iterator[tuple[int, str, int]]:
    """After which change, what is left, and the seed of what is left to chance."""
    draw = random.Random(seed)
    every = [(at, variant, seed + i) for at in range(len(run.log) + 1) for i, variant in enumerate(VARIANTS)]
    must = [(run.done_at, variant, seed + i) for i, variant in enumerate(VARIANTS)]
    others = [case for case in every if case not in must]
    yield from must
    yield from draw.sample(others, k=min(len(others), round(len(others) * scale)))


def survives(at: int, variant: str, seed: int, run: Recorded, reference: Expected, scratch: Path) -> str | None:
    """What is wrong after the power loss and a run; None: nothing."""
    place = Path(tempfile.mkdtemp(dir=scratch))
    try:
        disk = Disk()
        disk.replay(run.log[:at])
        image(disk.top, place, variant, random.Random(f"{seed} {at}"))
        if at >= run.done_at:
            record = read_record(folder_of(tiny(place)))
            if record is None or not record.status.is_final:
                return f"after change {at}, {variant}: it was done, and its final result is lost"
        wrong = recovers(place, reference)
        return f"after change {at} ({run.log[at - 1][:2] if at else 'none'}), {variant}: {wrong}" if wrong else None
    finally:
        shutil.rmtree(place)
