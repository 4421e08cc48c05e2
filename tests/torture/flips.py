"""Damage to what lies on the disk: a flipped bit, a missing end. No run resumes from a damaged checkpoint."""

import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from batchlab.recording.checkpoint_files import usable_checkpoints
from batchlab.recording.results import write_results
from batchlab.recording.run_folder import read_records
from batchlab.tensorboard.study_view import rebuild
from torture.comparison import came_to, differences
from torture.tiny import folder_of, stop_at, tiny, train


@dataclass
class Stopped:
    """A run that was stopped with two checkpoints, whole again before each damage."""

    place: Path
    newest: Path
    older: Path

    def whole_again(self, content: bytes) -> None:
        shutil.rmtree(self.newest.parent / "damaged", ignore_errors=True)
        self.newest.write_bytes(content)


def stopped(scratch: Path) -> Stopped:
    """Six of ten steps are done."""
    place = Path(tempfile.mkdtemp(dir=scratch))
    config = tiny(place)
    assert train(config, stopping=stop_at(7)).status == "interrupted"
    older, newest = sorted((folder_of(config) / "checkpoints").glob("step*.pt"))
    return Stopped(place, newest, older)


def flipped(content: bytes, draw: random.Random) -> bytes:
    """One bit of it is another."""
    at = draw.randrange(len(content) * 8)
    changed = bytearray(content)
    changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


def checkpoint_faults(run: Stopped, damages: Iterator[bytes]) -> Iterator[str | None]:
    """Each damage to the newest checkpoint in turn: None where it was set aside and the older one taken."""
    content, kept = run.newest.read_bytes(), run.older.read_bytes()
    for damage in damages:
        run.newest.write_bytes(damage)
        reported: list[str] = []
        path, found = next(usable_checkpoints(run.newest.parents[1], reported))
        aside = run.newest.parent / "damaged" / run.newest.name
        if (path, found) != (run.older, kept):
            yield f"{path.name} was taken"
        elif len(reported) != 1 or run.newest.name not in reported[0] or aside.read_bytes() != damage:
            yield f"it is not aside, or not reported: {reported}"
        else:
            yield None
        run.whole_again(content)


def bit_flips(run: Stopped, count: int, seed: int) -> Iterator[str | None]:
    """Single bits of the newest checkpoint."""
    draw, content = random.Random(seed), run.newest.read_bytes()
    yield from checkpoint_faults(run, (flipped(content, draw) for _ in range(count)))


def truncations(run: Stopped, stride: int) -> Iterator[str | None]:
    """The newest checkpoint, shorter than it was by every number of bytes (or every `stride`-th)."""
    content = run.newest.read_bytes()
    yield from checkpoint_faults(run, (content[:length] for length in range(0, len(content), stride)))


def goes_on(run: Stopped, scratch: Path, name: str, damage: bytes, expected: object) -> str | None:
    """Resumes the run with a damaged file to its end: its result is that of an undisturbed run."""
    place = Path(tempfile.mkdtemp(dir=scratch))
    shutil.copytree(run.place / "study", place / "study")
    config = tiny(place)
    try:
        (folder_of(config) / name).write_bytes(damage)
        record = train(config)
        wrong = differences(came_to(folder_of(config)), expected)
    except Exception as error:
        return f"{name}: {type(error).__name__}: {error}"
    finally:
        shutil.rmtree(place)
    return f"{name}: {record.status} {record.reason}: {'; '.join(wrong[:3])}" if wrong else None


def reads(run: Stopped, scratch: Path, name: str, damage: bytes) -> str | None:
    """What a report makes of a damaged file: anything but a traceback.

    A number that became another number cannot be told: neither file holds a checksum.
    """
    place = Path(tempfile.mkdtemp(dir=scratch))
    shutil.copytree(run.place / "study", place / "study")
    study = folder_of(tiny(place)).parent
    try:
        (study / "tiny" / name).write_bytes(damage)
        unreadable: list[str] = []
        if not read_records(study, unreadable) and not unreadable:
            return f"{name}: the run is gone, and nothing was reported"
        write_results(study)
        rebuild(study)
    except Exception as error:
        return f"{name}: {type(error).__name__}: {error}"
    finally:
        shutil.rmtree(place)
    return None
