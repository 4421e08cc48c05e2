"""`batchlab doctor` tells what was read or measured, and survives what is broken."""

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_nvml import divided, four
from invented.records import batchlab
from rich.console import Console

from batchlab.cli import machine
from batchlab.cli.commands.doctor import judge_cuda, probe_gpus, probe_pytorch, show
from batchlab.cli.machine import Findings, check_requirements, read_disk, read_nvidia, requirements
from batchlab.host.device_choice import NoCuda
from batchlab.host.nvml import read_driver
from batchlab.recording.environment import installed_version


@pytest.mark.slow  # the README's does
def test_doctor_measures_this_machine_and_names_a_broken_torchvision(tmp_path: Path) -> None:
    stub = tmp_path / "stub" / "torchvision"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    path = f"{stub.parent}:{Path(machine.__file__).parents[2]}"

    ended = batchlab("doctor", "--json", folder=tmp_path, PYTHONPATH=path, CUDA_VISIBLE_DEVICES="")

    said = json.loads(ended.stdout)
    facts, problems = said["facts"], said["problems"]
    assert facts["PyTorch"]["torch"].startswith(str(installed_version("torch")).split("+")[0])
    assert facts["Software"]["hydra-core"] == installed_version("hydra-core")
    assert facts["PyTorch"]["torchvision"] == "does not import"
    assert facts["Device cpu"]["fp32"] == "yes"
    assert facts["Device cpu"]["tf32"].startswith("no: ")
    assert "times the speed of fp32" in facts["Device cpu"]["bf16"]
    assert str(tmp_path) in facts["Machine"]["disk"]
    torchvision = [problem for problem in problems if "operator torchvision::nms" in problem["what"]]
    assert [problem["prevents_running"] for problem in torchvision] == [False]
    assert ended.returncode == int(any(problem["prevents_running"] for problem in problems))


def test_a_pytorch_that_dies_is_reported_with_what_it_was_doing() -> None:
    found = Findings()
    dies = (
        'import os; print(\'a banner\'); print(\'{"fact": ["PyTorch", "torch", "2.15"]}\');'
        "print('{\"doing\": \"using cuda:0\"}', flush=True); os.write(2, b'no kernel\\n'); os.abort()"
    )

    probe_pytorch(found, [sys.executable, "-c", dies])

    assert found.facts == {"PyTorch": {"torch": "2.15"}}
    assert found.problems == [(True, "PyTorch failed while using cuda:0 (exit code -6): no kernel")]


@pytest.mark.parametrize(
    ("gpus", "build", "available", "expected"),
    [
        (0, True, False, None),
        (1, True, True, None),
        (1, False, False, (False, "built without CUDA")),
        (1, True, False, (True, "cannot use the GPU here")),
    ],
)
def test_a_gpu_that_pytorch_does_not_use_is_reported(
    gpus: int, build: bool, available: bool, expected: tuple[bool, str] | None
) -> None:
    found = Findings()

    judge_cuda(found, gpus, {"cuda_build": build, "cuda_available": available})

    assert [prevents for prevents, _ in found.problems] == ([expected[0]] if expected else [])
    assert all(expected[1] in what for _, what in found.problems if expected)


def test_requirements_that_are_not_met_are_reported() -> None:
    missing, old = check_requirements(["no-such-package>=2", "rich>=999", "rich>=1"])

    assert missing == (True, "no-such-package is not installed: pip install 'no-such-package>=2'")
    assert old[0] is False
    assert "batchlab requires 'rich>=999'" in old[1]


def test_the_requirements_are_those_of_pyproject() -> None:
    assert any(line.startswith("torch>=2.10") for line in requirements())
    assert not any("pytest" in line for line in requirements())


@pytest.mark.parametrize(("free", "prevents"), [(10 * 2**30, []), (2**29, [False]), (2**20, [True])])
def test_a_full_disk_is_reported(
    free: int, prevents: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free))
    found = Findings()

    read_disk(found, tmp_path / "not" / "yet")

    assert [problem[0] for problem in found.problems] == prevents
    assert str(tmp_path) in found.facts["Machine"]["disk"]


def test_a_folder_that_cannot_be_written_prevents_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everywhere
    found = Findings()

    read_disk(found, tmp_path)

    assert found.problems[0] == (True, f"runs cannot be written to {tmp_path}: give another folder with runs_dir=...")


def test_what_prevents_a_run_is_distinguished() -> None:
    found = Findings()
    found.fact("Machine", "CPU", "one\x1b[31m")
    found.problem(False, "a note")
    console = Console(file=io.StringIO(), width=30)
    show(found, console)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == "Machine\n  CPU  one[31m\n\nNote: a note\nNothing prevents a run.\n"

    found.problem(True, "a fault " + "that is long " * 5)
    console = Console(file=io.StringIO(), width=30)
    show(found, console)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().endswith("Wrong: a fault " + "that is long " * 4 + "that is long\n")


GPU_PROBE = (
    "import json, sys; broken, device = sys.argv[1:]; print(json.dumps({'fact': [f'Device {device}', 'fp32', 'yes']}));"
    "broken = device in broken.split(',');"
    "print(json.dumps({'problem': [True, f'device={device} cannot be used: full'] if broken else [False, 'a note']}))"
)


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ("", [(False, "a note")] * 2),
        ("cuda:1", [(False, "a note"), (False, "device=cuda:1 cannot be used: full (cuda can be used)")]),
        ("cuda", [(False, "device=cuda cannot be used: full (cuda:1 can be used)"), (False, "a note")]),
        ("cuda,cuda:1", [(True, "device=cuda cannot be used: full"), (True, "device=cuda:1 cannot be used: full")]),
    ],
)
def test_a_gpu_that_fails_is_a_note_where_another_can_be_used(broken: str, expected: list[tuple[bool, str]]) -> None:
    """The first is asked as `device=cuda`, which is what a run that names none has."""
    found = Findings()

    probe_gpus(found, 2, [sys.executable, "-c", GPU_PROBE, broken])

    assert list(found.facts) == ["Device cuda", "Device cuda:1"]
    assert found.problems == expected


def test_the_driver_says_what_is_wrong_with_a_gpu_that_pytorch_cannot_use() -> None:
    found = Findings()
    lack = NoCuda("its driver 550 supports CUDA 12.4, but PyTorch is built for CUDA 13.2", "update the driver")

    judge_cuda(found, 1, {"cuda_build": True, "cuda_available": False}, lack)

    expected = f"PyTorch cannot use the GPU here: {lack.what}; update the driver; device=cpu runs without it"
    assert found.problems == [(True, expected)]


def test_every_gpu_of_the_driver_is_shown() -> None:
    api = four()
    api.cards = [*api.cards[:1], *divided("MIG-1").cards]
    api.cards[0].pids, api.cards[0].mode = [1, 2], 3
    found = Findings()

    assert read_nvidia(found, read_driver(api)) == 2
    assert found.facts["NVIDIA"] == {
        "driver": "595.71.05, for CUDA up to 13.2",
        "GPU 0": "NVIDIA H200, 140.0 GiB, 0.5 in use, 2 programs computing on it, compute mode exclusive",
        "GPU 1": "NVIDIA H200, 140.0 GiB, 0.5 in use, divided by MIG into 1 instance",
        "GPU 1, MIG 0": "NVIDIA H200 MIG 1g.18gb, 18.0 GiB, 0.5 in use",
    }
