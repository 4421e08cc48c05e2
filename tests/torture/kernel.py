"""The system's own errors, no stand-ins: files that may not grow, memory that is not there, folders that vanish."""

import contextlib
import json
import os
import re
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torture.kills import different
from torture.sweeps import STARTED, Sweep, sweep

STORAGE = 74
DATA_LIMIT = 6 * 2**30  # bytes of private memory


class NotHere(Exception):  # noqa: N818 - a message, not a failure
    """This machine does not let it be tried."""


def limited(what: int, most: int) -> Callable[[], None]:
    """For a process about to start: its own limit, and its children's."""
    return lambda: resource.setrlimit(what, (most, most))


def refused(code: int, output: str, *words: str) -> str | None:
    """A storage error: exit code 74 and one clear line, without a traceback."""
    messages = [line for line in output.splitlines() if line.startswith("batchlab: ")]
    if code != STORAGE or "Traceback" in output or len(messages) != 1:
        return f"exit code {code}: {output}"
    missing = [word for word in words if word not in messages[0]]
    return f"{missing} not in {messages[0]!r}" if missing else None


def completes(folder: Path, expected: dict[str, Any], *grid: str) -> str | None:
    """The same command again, with nothing in its way."""
    with sweep(folder, *grid) as running:
        code = running.end()
        wrong = different(running.study, expected)
        return f"exit code {code}: {running.output}" if code else "; ".join(wrong[:4]) or None


def file_too_large(folder: Path, most: int, expected: dict[str, Any], *grid: str) -> str | None:
    """No file may have more than `most` bytes (EFBIG)."""
    folder.mkdir()
    with sweep(folder, *grid, before=limited(resource.RLIMIT_FSIZE, most)) as running:
        wrong = refused(running.end(), running.output, "File too large", "runs", "free some space")
    return wrong or completes(folder, expected, *grid)


def disk_full(folder: Path, kib: int, expected: dict[str, Any], *grid: str) -> str | None:
    """A disk of `kib` KiB, later a larger one (ENOSPC)."""
    (folder / "runs").mkdir(parents=True)
    with _mounted(folder / "runs", kib):
        with sweep(folder, *grid) as running:
            wrong = refused(running.end(), running.output, "No space left on device", "runs", "free some space")
        if wrong is None:
            subprocess.run(["mount", "-o", "remount,size=64m", str(folder / "runs")], check=True)
            wrong = completes(folder, expected, *grid)
    return wrong


@contextlib.contextmanager
def _mounted(place: Path, kib: int) -> Iterator[None]:
    size = f"size={kib}k"
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "torture", str(place)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotHere("a disk of a few KiB cannot be mounted here") from error
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def out_of_memory(folder: Path) -> str | None:
    """A point that needs 64 GiB where 6 are available: a final result, and the larger one is not tried."""
    folder.mkdir()
    grid = ("batch_size=16,32,64", "model.hungry=32")
    with sweep(folder, *grid, before=limited(resource.RLIMIT_DATA, DATA_LIMIT)) as running:
        code = running.end()
        records = [json.loads(path.read_text()) for path in running.study.glob("*/record.json")]
        found = {r["batch_size"]: (r["status"], r["reason"]) for r in records}
    first, second, third = (found.get(size, ("", "")) for size in (16, 32, 64))
    right = (
        code == 0
        and first[0] == "completed"
        and second[0] == third[0] == "oom"
        and "can't allocate memory" in second[1]
        and third[1].startswith("not run: batch_size=32 ")
    )
    return None if right else f"exit code {code}: {found} {running.output}"


def removed(folder: Path, what: str, expected: dict[str, Any], *grid: str) -> str | None:
    """The study's folder, or the running point's, is gone all at once."""
    folder.mkdir()
    with sweep(folder, *grid) as running:
        run = _first_run(running)
        shutil.rmtree(running.study if what == "study" else run)
        wrong = refused(running.end(), running.output, "No such file or directory", str(Path("runs") / "study"))
    return wrong or completes(folder, expected, *grid)


def _first_run(running: Sweep) -> Path:
    """The folder of its first point, once that one trains."""
    running.hear(STARTED)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if found := [path for path in running.study.glob("*/metrics.jsonl") if path.stat().st_size]:
            return found[0].parent
        time.sleep(0.01)
    raise TimeoutError(f"no point trains: {running.output}")


def linked_to_a_full_device(folder: Path, *grid: str) -> str | None:
    """A journal that is a link to /dev/full: links are not followed, so it is refused before a byte is written."""
    folder.mkdir()
    with sweep(folder, *grid) as running:
        journal = _first_run(running) / "metrics.jsonl"
        running.kill()
        running.end()
    journal.unlink()
    journal.symlink_to("/dev/full")
    with sweep(folder, *grid) as running:
        return refused(running.end(), running.output, "metrics.jsonl cannot be written")


def not_to_be_written(folder: Path, *grid: str) -> list[str | None]:
    """Places where nobody, root included, makes a folder: nothing is started there."""
    folder.mkdir()
    (folder / "file").touch()
    found = []
    for place in ("/proc", str(folder / "file")):
        with sweep(folder, *grid, f"runs_dir={place}") as running:
            wrong = refused(running.end(), running.output, place)
            started = re.search("started", running.output) is not None
            found.append(wrong or ("a point was started" if started else None))
    if os.getuid() != 0:
        (folder / "runs").mkdir(mode=0o500)
        with sweep(folder, *grid) as running:
            found.append(refused(running.end(), running.output, "Permission denied"))
    return found
