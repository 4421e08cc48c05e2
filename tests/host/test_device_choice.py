"""`auto`, `cuda` and `cuda:N` on machines that a fake driver describes."""

from pathlib import Path

import pytest
from fake_nvml import Card, FakeNvml, divided, four

from batchlab.errors import BadRequest
from batchlab.host import device_choice
from batchlab.host.device_choice import resolve_device
from batchlab.host.nvml import read_driver
from batchlab.host.torch_build import Build, build_of

CUDA = Build(cuda="13.2")
ABSENT = FakeNvml(starts=False)


@pytest.fixture(autouse=True)
def nothing_said() -> None:
    device_choice.say_once.cache_clear()


def resolved(requested: str, api: FakeNvml, build: Build = CUDA, **environ: str) -> str:
    return resolve_device(requested, environ=environ, build=build, driver=read_driver(api))


def with_mode(mode: int, *pids: int) -> FakeNvml:
    return FakeNvml([Card("GPU-a", mode=mode, pids=list(pids)), Card("GPU-b", mode=mode, pids=list(pids))])


@pytest.mark.parametrize("api", [four(), four("NVIDIA A100", "NVIDIA T4"), divided("MIG-1"), with_mode(3)])
def test_a_gpu_that_can_be_used_is_taken(api: FakeNvml, capsys: pytest.CaptureFixture[str]) -> None:
    assert [resolved(requested, api) for requested in ("auto", "cuda", "cuda:0", "cpu")] == [
        "cuda",
        "cuda",
        "cuda:0",
        "cpu",
    ]
    assert capsys.readouterr().err == ""


UNUSABLE = [
    (FakeNvml([Card("GPU-a")], cuda=12040), {}, "supports CUDA 12.4, but PyTorch is built for CUDA 13.2", "update the"),
    (four(), {"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, "the batch system assigned no GPU to this job", "--gres=gpu:1"),
    (four(), {"CUDA_VISIBLE_DEVICES": "7"}, "CUDA_VISIBLE_DEVICES=7 hides all GPUs", "to an existing GPU"),
    (FakeNvml([Card("GPU-a")]), {"CUDA_VISIBLE_DEVICES": "MIG-z"}, "=MIG-z hides all", "to an existing GPU"),
    (divided(), {}, "is in MIG mode and has no instance", "create an instance"),
    (with_mode(2), {}, r"NVIDIA H200 \(GPU-a\) is in compute mode prohibited", "nvidia-smi -c DEFAULT"),
    (with_mode(3, 41), {}, "in exclusive mode and used by process 41", "wait for it"),
]


@pytest.mark.parametrize(("api", "environ", "what", "instead"), UNUSABLE)
def test_auto_falls_back_to_the_cpu_and_says_why_once(
    api: FakeNvml, environ: dict[str, str], what: str, instead: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [resolved("auto", api, **environ) for _ in range(2)] == ["cpu", "cpu"]

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("device=auto uses the CPU: ")
    assert what.replace("\\", "") in line
    assert instead in line


@pytest.mark.parametrize("requested", ["cuda", "cuda:0"])
@pytest.mark.parametrize(("api", "environ", "what", "instead"), UNUSABLE)
def test_cuda_is_refused_with_what_is_wrong_and_what_to_do(
    api: FakeNvml, environ: dict[str, str], what: str, instead: str, requested: str
) -> None:
    reported = rf"^device={requested} was requested, but .*{what}.*{instead}.*, or use device=cpu$"
    with pytest.raises(BadRequest, match=reported):
        resolved(requested, api, **environ)


@pytest.mark.parametrize(
    ("api", "build", "environ"),
    [
        (ABSENT, CUDA, {}),
        (FakeNvml(), CUDA, {}),
        (ABSENT, Build(), {}),
        (four(), CUDA, {"CUDA_VISIBLE_DEVICES": ""}),
        (four(), CUDA, {"CUDA_VISIBLE_DEVICES": "-1"}),
    ],
)
def test_without_a_gpu_auto_is_the_cpu_without_a_message(
    api: FakeNvml, build: Build, environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert resolved("auto", api, build, **environ) == "cpu"
    assert capsys.readouterr().err == ""
    with pytest.raises(BadRequest, match="device=cuda was requested"):
        resolved("cuda", api, build, **environ)


def test_a_gpu_next_to_a_pytorch_without_cuda_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert resolved("auto", four(), Build()) == "cpu"
    assert "is built without CUDA; install one for this GPU" in capsys.readouterr().err


@pytest.mark.parametrize(("requested", "seen"), [("cuda:9", "cuda:0 to cuda:3"), ("cuda:4", "cuda:0 to cuda:3")])
def test_a_device_that_is_not_there_is_refused(requested: str, seen: str) -> None:
    with pytest.raises(BadRequest, match=f"{requested} was requested, but this machine has {seen}: use one of those"):
        resolved(requested, four())
    with pytest.raises(BadRequest, match="this machine has only cuda:0"):
        resolved("cuda:1", divided("MIG-1", "MIG-2"))


def test_cuda_is_taken_where_one_of_the_gpus_can_be_used() -> None:
    api = four()
    api.cards[0].mode = 2

    assert resolved("cuda", api) == "cuda"
    with pytest.raises(BadRequest, match="prohibited"):
        resolved("cuda:0", api, CUDA_DEVICE_ORDER="PCI_BUS_ID")
    assert resolved("cuda:1", api, CUDA_DEVICE_ORDER="PCI_BUS_ID") == "cuda:1"


def test_a_build_for_amd_is_accepted_where_its_driver_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_choice, "AMD_DRIVER", tmp_path / "kfd")
    rocm = build_of("cuda: Optional[str] = None\nhip: Optional[str] = '7.1.52802-26aae437f6'\n")
    with pytest.raises(BadRequest, match="built for AMD GPUs, but their driver is missing"):
        resolved("cuda", ABSENT, rocm)
    assert resolved("auto", ABSENT, rocm) == "cpu"

    (tmp_path / "kfd").touch()

    assert [resolved(requested, ABSENT, rocm) for requested in ("auto", "cuda", "cuda:1")] == ["cuda", "cuda", "cuda:1"]
    assert resolved("auto", ABSENT, rocm, HIP_VISIBLE_DEVICES="-1") == "cpu"


def test_a_version_file_says_what_pytorch_is_built_for() -> None:
    """As the wheels of pytorch.org have it, for CUDA, for ROCm and for the CPU."""
    assert build_of("__version__ = '2.15.0+cu132'\ncuda: Optional[str] = '13.2'\nhip: Optional[str] = None\n") == CUDA
    assert build_of("cuda = None\nhip = '6.2.41133-dd7f95766'") == Build(hip="6.2.41133")
    assert build_of("__version__ = '2.15.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n") == Build()
