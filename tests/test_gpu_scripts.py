"""`scripts/gpu_smoke` and `scripts/gpu_check` end in time, report errors, and lose no results."""

import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def scripts(repository: Path) -> Iterator[Path]:
    """The folder of scripts, on `sys.path` together with their checks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(repository / "tests/gpu"))
        patch.syspath_prepend(str(repository / "scripts"))
        yield repository / "scripts"


@pytest.fixture(scope="module")
def gpu_check(scripts: Path) -> ModuleType:
    loader = SourceFileLoader("gpu_check", str(scripts / "gpu_check"))
    spec = importlib.util.spec_from_loader("gpu_check", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = module  # dataclasses look up annotations there
    loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def runner(scripts: Path) -> ModuleType:
    from smoke import runner

    return runner


def passes(device: str) -> dict[str, str]:
    return {"on": device}


def fails(device: str) -> None:
    sys.stdout.write("before it failed\n")
    raise ValueError(f"first line of {device}\nsecond line")


def hangs(device: str) -> None:
    signal.pause()


def dies(device: str) -> None:
    sys.stdout.write("last words\n")
    os._exit(3)


def test_each_check_ends_independently_of_the_others(runner: ModuleType) -> None:
    def is_left_out(device: str) -> None:
        raise runner.LeftOutError("there is no second one")

    bodies = (dies, fails, is_left_out, passes)
    checks = [runner.Check(body.__name__, "a question", body) for body in bodies]
    checks.append(runner.Check("needs_one", "a question", passes, needs="cuda"))
    checks.append(runner.Check("hangs", "a question", hangs, limit=0.3))

    found = {result["check"]: result for result in runner.run_checks(checks, "cpu", at_once=2)}

    assert {name: result["status"] for name, result in found.items()} == {
        "hangs": "out of time",
        "dies": "died",
        "fails": "failed",
        "is_left_out": "left out",
        "passes": "passed",
        "needs_one": "left out",
    }
    assert found["passes"]["figures"] == {"on": "cpu"}
    assert found["fails"]["error"] == "ValueError: first line of cpu"
    assert "in fails" in found["fails"]["traceback"]
    assert found["fails"]["output"] == "before it failed\n"
    assert "ended with 3" in found["dies"]["error"]
    assert found["dies"]["output"] == "last words\n"
    assert found["is_left_out"]["error"] == "there is no second one"
    assert found["hangs"]["seconds"] < 5


def test_a_check_that_must_run_alone_does(runner: ModuleType, tmp_path: Path) -> None:
    def counted(device: str) -> dict[str, int]:
        mark = tmp_path / f"running-{os.getpid()}"
        mark.touch()
        until = time.monotonic() + 0.3
        while (running := len(list(tmp_path.iterdir()))) == 1 and time.monotonic() < until:
            pass  # the other one would come now
        mark.unlink()
        return {"running": running}

    def at_once(*alone: bool) -> list[int]:
        checks = [runner.Check(f"check{n}", "a question", counted, alone=is_alone) for n, is_alone in enumerate(alone)]
        return [r["figures"]["running"] for r in runner.run_checks(checks, "cpu", at_once=2)]

    assert at_once(True, False) == [1, 1]
    assert at_once(False, True) == [1, 1]
    assert max(at_once(False, False)) == 2


def test_the_expectation_of_a_check_is_kept_with_its_figures(runner: ModuleType) -> None:
    def wants_more(device: str) -> None:
        runner.wants(False, "it is too small", size=3)

    (result,) = runner.run_checks([runner.Check("wants_more", "a question", wants_more)], "cpu")

    assert (result["error"], result["figures"]) == ("AssertionError: it is too small: size=3", {"size": 3})


@pytest.fixture(scope="module")
def checks(scripts: Path, runner: ModuleType) -> dict[str, Any]:
    """The checks of gpu_smoke by name."""
    loader = SourceFileLoader("gpu_smoke", str(scripts / "gpu_smoke"))
    spec = importlib.util.spec_from_loader("gpu_smoke", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    for name in module.MODULES:
        importlib.import_module(f"smoke.{name}")
    return {check.name: check for check in runner.CHECKS}


def test_there_is_a_check_for_each_question_and_its_limit_is_short(checks: dict[str, Any]) -> None:
    assert len(checks) >= 25
    assert {f"steps_{p}_{o}" for p in ("fp32", "tf32", "bf16", "fp16") for o in ("sgd", "adamw")} <= checks.keys()
    assert max(check.limit for check in checks.values() if check.name != "starts") <= 20
    assert all(check.asks for check in checks.values())


def test_checks_run_on_the_cpu_as_far_as_they_can(checks: dict[str, Any], runner: ModuleType) -> None:
    """Some of them; the slow test below runs all."""
    import batchlab.worker.preload  # noqa: F401 - as gpu_smoke does before it forks

    names = ("prepares_by_index", "first_overflow", "device_side_assert")
    found = {r["check"]: r for r in runner.run_checks([checks[name] for name in names], "cpu")}

    statuses = {name: result["status"] for name, result in found.items()}
    assert statuses == dict.fromkeys(names, "passed") | {"prepares_by_index": "left out"}, found
    assert found["device_side_assert"]["figures"]["steps"] > 0


def test_limits_of_all_steps_sum_to_eight_minutes_and_the_first_is_the_machine(gpu_check: ModuleType) -> None:
    assert sum(step.limit_seconds for step in gpu_check.STEPS) <= 480
    assert [step.name for step in gpu_check.STEPS][:2] == ["machine", "smoke"]


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def test_a_failed_step_is_reported_with_the_first_line_of_its_error(gpu_check: ModuleType, tmp_path: Path) -> None:
    line = gpu_check.ended(python("print('begins')\nraise ValueError('why\\nmore')"), tmp_path / "log.txt", 20)

    assert (line["status"], line["code"], line["error"]) == ("failed", 1, "ValueError: why")
    assert (tmp_path / "log.txt").read_text().startswith("begins\nTraceback")


def has_ended(pid: int) -> bool:
    """Whether a process has ended, or does so soon, because signals are not delivered immediately."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    return select.select([process], [], [], 5.0)[0] == [process]


def test_a_step_that_hangs_is_ended_with_what_it_started(gpu_check: ModuleType, tmp_path: Path) -> None:
    command = ["sh", "-c", "sleep 1000 & echo $!; wait"]

    line = gpu_check.ended(command, tmp_path / "log.txt", 0.5)

    assert line["status"] == "out of time"
    (pid,) = (tmp_path / "log.txt").read_text().split()
    assert has_ended(int(pid))


def test_a_warning_in_a_step_that_ends_well_is_kept_and_not_judged(gpu_check: ModuleType, tmp_path: Path) -> None:
    diverged = python("print('batchlab: 1 point diverged')")

    assert gpu_check.ended(diverged, tmp_path / "log.txt", 20)["status"] == "done"


def test_a_step_whose_module_is_missing_is_left_out(gpu_check: ModuleType, tmp_path: Path) -> None:
    step = gpu_check.Step("tests", 10, None, "", needs=("no_such_module",))

    line = gpu_check.run_step(step, tmp_path, tmp_path / "gpu.jsonl", 10, "cpu", small=True)

    assert (line["status"], line["error"]) == ("left out", "no_such_module not installed")
    (kept,) = map(json.loads, (tmp_path / "gpu.jsonl").read_text().splitlines())
    assert (kept["step"], kept["status"]) == ("tests", "left out")


def test_missing_packages_are_reported_with_how_to_install_them_before_anything_runs(
    scripts: Path, tmp_path: Path
) -> None:
    """With a Python without site-packages, as on a new machine."""
    command = [sys.executable, "-S", scripts / "gpu_check", "--out", tmp_path / "gpu.jsonl"]
    done = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    for name in ("hydra-core", "omegaconf", "antlr4-python3-runtime", "torch"):
        assert f"{name}==" in done.stderr
    assert "pip wheel --no-deps" in done.stderr
    assert "torchvision" not in done.stderr
    (line,) = map(json.loads, (tmp_path / "gpu.jsonl").read_text().splitlines())
    assert (line["step"], line["status"]) == ("packages", "aborted")


def test_only_what_is_missing_is_requested(gpu_check: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("hydra", "antlr4") else there(name))

    assert gpu_check.missing_packages() == ["hydra-core", "antlr4-python3-runtime"]


def test_lines_name_no_folder_of_this_machine(scripts: Path, tmp_path: Path, repository: Path) -> None:
    import json_lines

    json_lines.append(tmp_path / "x.jsonl", at=f"{repository}/batchlab/worker/execute.py", by=sys.executable, n=1)

    assert json_lines.read(tmp_path / "x.jsonl") == [{"at": "./batchlab/worker/execute.py", "by": "python", "n": 1}]


def test_the_tar_keeps_logs_and_records_and_leaves_the_rest(gpu_check: ModuleType, tmp_path: Path) -> None:
    for call in ("120000", "120101"):  # a second call adds to it
        run = tmp_path / call / "precisions/runs/study/run"
        run.mkdir(parents=True)
        for name in ("record.json", "worker.log", "metrics.jsonl", "events.out.tfevents.1", "step-000010.pt"):
            (run / name).write_text(call)
        gpu_check.keep(tmp_path / call / "precisions", tmp_path / "logs.tar")

    with tarfile.open(tmp_path / "logs.tar") as archive:
        names = archive.getnames()
    kept = ("metrics.jsonl", "record.json", "worker.log")
    assert sorted(names) == [f"{c}/precisions/runs/study/run/{n}" for c in ("120000", "120101") for n in kept]


@pytest.mark.slow
@pytest.mark.parametrize("simulated", [(), ("--simulated",)], ids=["cpu", "simulated"])
def test_all_of_it_runs_to_its_end_without_a_gpu(simulated: tuple[str, ...], scripts: Path, tmp_path: Path) -> None:
    command = [sys.executable, scripts / "gpu_check", "--patience=3", f"--out={tmp_path}/gpu.jsonl", *simulated]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    lines = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    statuses = {line["step"]: line["status"] for line in lines if "limit_seconds" in line}
    assert set(statuses.values()) == {"done"}, done.stdout
    assert len(statuses) == 9
    assert done.returncode == 0
    checks = {line["check"]: line["status"] for line in lines if "check" in line}
    assert set(checks.values()) == {"passed", "left out"}, checks
