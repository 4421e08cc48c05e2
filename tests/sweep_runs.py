"""Runs points inside a test, with a warm server for the session, and reads their results."""

from collections.abc import Sequence
from pathlib import Path

from batchlab.config import Request, SweepConfig, one_sweep
from batchlab.hydra_app import request
from batchlab.hydra_app.composing import pinned
from batchlab.recording.journal import read_journal
from batchlab.records import Measurement, RunRecord
from batchlab.sweep.checks import check_grid
from batchlab.sweep.identity import run_folder
from batchlab.sweep.planning import PointPlan, plan_point
from batchlab.sweep.points import Point, SweepOutcome
from batchlab.sweep.processes.server import WarmServer
from batchlab.sweep.processes.supervisor import run_grid
from batchlab.sweep.run_sweep import run_sweep


class Silent:
    """A spectator that records messages."""

    def __init__(self) -> None:
        self.reported: list[str] = []
        self.updates: list[int] = []

    def start(self, run_id: str, label: str, budget_examples: int) -> None:
        self.reported.append(f"start {label}")

    def expect(self, run_id: str, budget_examples: int) -> None:
        self.reported.append(f"expect {budget_examples}")

    def update(self, run_id: str, examples: int, loss: float | None, examples_per_second: float | None) -> None:
        self.updates.append(examples)

    def finish(self, run_id: str, status: object, record: RunRecord | None) -> None:
        self.reported.append(f"finish {status}")

    def abandon(self, run_id: str) -> None:
        self.reported.append("abandon")

    def say(self, text: str) -> None:
        self.reported.append(text)


class Lab:
    """Runs points of the shipped configs in a test's folder."""

    def __init__(self, server: WarmServer, runs_dir: Path) -> None:
        self.server = server
        self.runs_dir = runs_dir
        self._requests: dict[tuple[str, ...], Request] = {}

    def point(self, *overrides: str) -> Point:
        """A tiny point on the CPU, unless the overrides say otherwise."""
        request = self._request(overrides)
        return Point(pinned(request.run), tuple(overrides), published=request.published)

    def sweep(self, *points: Point) -> SweepConfig:
        """The sweep settings requested for `points`."""
        return one_sweep([self._request(point.overrides).sweep for point in points])

    def plan(self, point: Point) -> PointPlan:
        return plan_point(point, self.sweep(point))

    def run_sweep(self, *points: Point) -> int:
        return run_sweep(points, self.sweep(*points))

    def _request(self, overrides: tuple[str, ...]) -> Request:
        if overrides not in self._requests:
            tiny = ["device=cpu", "threads=1", f"runs_dir='{self.runs_dir}'"]
            self._requests[overrides] = request([*tiny, *overrides])
        return self._requests[overrides]

    def check(self, *points: Point) -> None:
        check_grid(points, self.server)

    def run(self, *points: Point, spectator: Silent | None = None) -> SweepOutcome:
        return run_grid(points, self.sweep(*points), self.server, spectator or Silent())

    def one(self, *overrides: str) -> RunRecord:
        (record,) = self.run(self.point(*overrides)).records
        return record

    def metrics(self, point: Point) -> list[Measurement]:
        return read_journal(run_folder(point.config) / "metrics.jsonl")

    def values(self, point: Point, name: str) -> list[float]:
        return [m.value for m in self.metrics(point) if m.name == name]


def lines_of(error: BaseException) -> Sequence[str]:
    return str(error).splitlines()
