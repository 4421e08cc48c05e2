"""Real sweeps, as a person types them: started, killed, started again, two at once, on a disk that is full."""

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
MARK = "BATCHLAB_TORTURE"  # in the environment of every process of a sweep, so that orphans are found
SLOW = '''
import time, torch

class Net(torch.nn.Module):
    """Takes `seconds` for every pass of training, so that a kill finds it there."""
    def __init__(self, seconds=0.004, note="", api_key="", hungry=0):
        super().__init__()
        self.seconds, self.hungry = seconds, hungry
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(64, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Dropout(0.2),
            torch.nn.Linear(16, 10),
        )
    def forward(self, x):
        if self.training:
            time.sleep(self.seconds)
            if self.hungry and len(x) >= self.hungry:
                torch.ones(2**34)
        return self.layers(x.flatten(1))
'''
GRID = ("batch_size=16,32", "seed=0,1,2", "accumulate=null,2")  # 12 points
POINTS = 12
SETTINGS = (
    "model._target_=slow.Net", "examples=2400", "eval_every=500", "log_every=300", "checkpoint_every=96",
    "device=cpu", "study=study", "report=false",
)  # fmt: skip
STARTED = re.compile(r"\[\d+/\d+\] .*: started")


class Sweep:
    """One `batchlab sweep` under way in `folder`; its lines are heard as they come."""

    def __init__(
        self,
        folder: Path,
        *overrides: str,
        before: Callable[[], None] | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.folder = folder
        (folder / "slow.py").write_text(SLOW)
        self.mark = uuid.uuid4().hex
        self.lines: list[str] = []
        self._news: queue.Queue[str | None] = queue.Queue()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BATCHLAB")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "batchlab.cli.main", "sweep", *SETTINGS, *overrides],
            cwd=folder,
            env={**inherited, "PYTHONPATH": str(REPOSITORY), MARK: self.mark, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=before,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def study(self) -> Path:
        return self.folder / "runs" / "study"

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def hear(self, pattern: re.Pattern[str], *, seconds: float = 120) -> bool:
        """Waits for a line like that; False where the sweep ended without one."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            try:
                line = self._news.get(timeout=left)
            except queue.Empty:
                break
            if line is None:
                return False
            if pattern.search(line):
                return True
        raise TimeoutError(f"no {pattern.pattern!r} in {seconds} s: {self.output}")

    def end(self, seconds: float = 240) -> int:
        """Waits for its end; its exit code."""
        code = self.process.wait(timeout=seconds)
        self._listener.join(timeout=20)
        return code

    def kill(self, number: int = signal.SIGKILL) -> None:
        """The sweep's own process gets the signal, nobody else."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def workers(self) -> list[int]:
        """The processes that hold a run of its study just now."""
        found = []
        for lock in self.study.glob("*/lock"):
            with contextlib.suppress(OSError):
                if (reported := re.search(r'"pid": (\d+)', lock.read_text())) and int(reported[1]) in self.alive():
                    found.append(int(reported[1]))
        return found

    def alive(self) -> list[int]:
        """Every living process that it started, itself included."""
        everybody = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal())
        return [pid for pid in everybody if self._is_its(pid)]

    def orphans(self, seconds: float = 10) -> list[int]:
        """Who is left so long after its end."""
        until = time.monotonic() + seconds
        while (left := self.alive()) and time.monotonic() < until:
            time.sleep(0.05)
        return left

    def close(self) -> None:
        """Waits for the last of it."""
        self.process.wait()
        self._listener.join(timeout=20)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _is_its(self, pid: int) -> bool:
        with contextlib.suppress(OSError):
            if f"{MARK}={self.mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        return False

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            self._news.put(line)
        self._news.put(None)


@contextlib.contextmanager
def sweep(
    folder: Path,
    *overrides: str,
    before: Callable[[], None] | None = None,
    environment: dict[str, str] | None = None,
) -> Iterator[Sweep]:
    """A sweep that does not outlive the block."""
    started = Sweep(folder, *overrides, before=before, environment=environment)
    try:
        yield started
    finally:
        for pid in started.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        started.close()


def finished(folder: Path, *overrides: str) -> tuple[int, str]:
    """A sweep to its end: exit code and what it reported."""
    with sweep(folder, *overrides) as running:
        code = running.end()
        return code, running.output


def answers(study: Path) -> dict[str, bytes]:
    """The records that hold a final result, as they are on the disk."""
    found = {path.parent.name: path.read_bytes() for path in study.glob("*/record.json")}
    return {name: content for name, content in found.items() if b'"status": "completed"' in content}


def run_folders(study: Path) -> Sequence[Path]:
    return sorted(path.parent for path in study.glob("*/record.json"))
