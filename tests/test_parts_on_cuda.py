"""Every part that takes a device accepts `cuda`, `cuda:0` and `cuda:1`, with torch.cuda's own argument checks."""

import json

import pytest
import torch
from faked_cuda import faked_cuda
from simulated_device import simulated_cuda
from still_state import state_of
from torture.tiny import ADAMW, folder_of, stop_at, tiny, train

from batchlab.cli import torch_probe as doctor
from batchlab.errors import BadRequest
from batchlab.records import RunStatus
from batchlab.science.memory.largest_fit import Outcome
from batchlab.training import assembly, checkpoint
from batchlab.training.devices import cuda as cuda_devices
from batchlab.training.devices.cuda import spills_to_the_host
from batchlab.training.devices.named import device_named
from batchlab.worker.check import examination as checking
from batchlab.worker.check.findings import is_wrong
from batchlab.worker.preflight import examine
from batchlab.worker.probe import WARM_UP_SECONDS, WINDOW_SECONDS, probe
from batchlab.worker.verify import examination as verifying

pytestmark = pytest.mark.long  # every part on a simulated GPU

NAMES = ["First GPU", "Second GPU"]
ASKED = [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)]
MIB = 2**20
on_each = pytest.mark.parametrize(("requested", "index"), ASKED)


@pytest.fixture
def cuda():
    with simulated_cuda(2, name=NAMES, total_bytes=256 * MIB) as machine:
        yield machine


def only_used(cuda, index):
    """Kernels ran on this device, and none on the other."""
    return cuda.gpus[index].kernels > 0 and cuda.gpus[1 - index].kernels == 0


@on_each
def test_preparing_a_process_sets_the_current_device(requested, index, tmp_path):
    with faked_cuda(2, name=NAMES) as cuda:
        device = assembly.prepare_process(tiny(tmp_path, device=requested))

        assert ("set_device", index) in cuda.calls
        assert torch.cuda.current_device() == index
        assert device.torch_device == torch.device("cuda", index)
        assert assembly.device_facts(device)["device_name"] == NAMES[index]


@on_each
def test_preflight_builds_the_grid_on_it(requested, index, cuda, tmp_path):
    grid = [tiny(tmp_path, device=requested, batch_size=size) for size in (4, 8)]

    problems, facts = examine(grid)

    assert problems == []
    assert [fact.device_name for fact in facts] == [NAMES[index]] * 2
    assert only_used(cuda, index)


@pytest.mark.parametrize(
    ("requested", "index", "precision"),
    [*((*each, "fp32") for each in ASKED), ("cuda", 0, "tf32"), ("cuda:1", 1, "bf16"), ("cuda:1", 1, "fp16")],
)
def test_a_run_trains_on_it_and_says_so(requested, index, precision, cuda, tmp_path):
    record = train(tiny(tmp_path, device=requested, precision=precision, optimizer=ADAMW))

    assert (record.status, record.reason) == (RunStatus.COMPLETED, "")
    assert record.environment["device_name"] == NAMES[index]
    assert only_used(cuda, index)


def probed(config, size=8, allowed=64 * MIB):
    return probe(config, size, allowed=allowed, headroom=0.05, exact=False, steps=3, seconds=0.0)


@on_each
def test_finds_limit_is_set_on_it_and_taken_away(requested, index, cuda, tmp_path):
    made, account = probed(tiny(tmp_path, device=requested))

    assert (made.outcome, made.reason) == (Outcome.FITS, "")
    assert account is not None
    assert made.peak_bytes == 2 * MIB  # one small segment of the allocator
    fractions = [call[1:] for call in cuda.calls if call[0] == "memory_fraction"]
    assert (fractions[0], fractions[-1]) == ((64 / 256, index), (1.0, index))
    assert only_used(cuda, index)


def test_a_limit_makes_a_card_of_that_size_of_the_device(cuda):
    device = device_named("cuda")
    device.prepare(deterministic=False)
    with device.limited(64 * MIB):
        assert (device.total_bytes(), device.gather_bytes) == (64 * MIB, 64 * MIB // 512)
    assert device.total_bytes() == 256 * MIB


def test_what_cuda_takes_in_addition_to_tensors_is_subtracted_from_a_given_limit(cuda, tmp_path, monkeypatch):
    monkeypatch.setattr("batchlab.worker.probe.process_bytes", lambda uuid, pid: 20 * MIB)
    assert probed(tiny(tmp_path, device="cuda"), allowed=None)[0].allowed_bytes == int(0.95 * (256 - 32) * MIB)
    assert probed(tiny(tmp_path, device="cuda"), allowed=64 * MIB)[0].allowed_bytes == 44 * MIB


@pytest.mark.parametrize(("release", "limited"), [("6.6.87.2-microsoft-standard-WSL2", True), ("6.1.0-amd64", False)])
def test_under_windows_pytorch_refuses_what_the_driver_would_serve_from_the_host(
    release, limited, tmp_path, monkeypatch
):
    kernel = tmp_path / "osrelease"
    kernel.write_text(release)
    monkeypatch.setattr(cuda_devices, "spills_to_the_host", lambda: spills_to_the_host(kernel))
    with faked_cuda(1, total_bytes=256 * MIB) as cuda:
        device_named("cuda").prepare(deterministic=False)
        free, total = torch.cuda.mem_get_info(0)
    assert free < total
    assert [call[1:] for call in cuda.calls if call[0] == "memory_fraction"] == [(free / total, 0)] * limited


@pytest.mark.parametrize("kernel", [2e-3, 200e-6])
def test_find_times_a_gpu_when_it_is_warm_and_for_as_long_as_it_says(kernel, tmp_path):
    slow = 10  # times slower at its idle clock, for the first half second
    with simulated_cuda(1, total_bytes=256 * MIB, kernel_seconds=kernel, launch_seconds=1e-6) as cuda:
        cuda.kernel_seconds = lambda operator, result: kernel * (slow if cuda.clock() < 0.5 else 1)
        config = tiny(tmp_path, device="cuda")
        made, _ = probe(config, 8, allowed=64 * MIB, headroom=0.05, exact=False, steps=3, seconds=0.4, clock=cuda.clock)
        ended = cuda.clock()
    assert made.outcome is Outcome.FITS
    # No window is of the idle clock, and together they are about as long as requested.
    assert max(made.step_seconds) < 1.2 * min(made.step_seconds)
    window = max(1, round(WINDOW_SECONDS / made.step_seconds[0])) * made.step_seconds[0]
    assert 0.4 <= len(made.step_seconds) * window < 0.4 + 2 * window
    assert ended > WARM_UP_SECONDS + 0.4


@on_each
def test_without_a_limit_find_has_what_is_free_on_it(requested, index, cuda, tmp_path):
    made, _ = probed(tiny(tmp_path, device=requested), allowed=None)

    assert (made.outcome, made.allowed_bytes) == (Outcome.FITS, int(0.95 * (256 - 32) * MIB))  # 32: its context


@on_each
def test_a_probe_that_does_not_fit_says_what_cuda_says(requested, index, cuda, tmp_path):
    made, _ = probed(tiny(tmp_path, device=requested), 2**17, allowed=8 * MIB)

    assert made.outcome is Outcome.OOM
    assert made.phase == "batch"
    assert made.reason.startswith(f"CUDA out of memory. Tried to allocate 20.00 MiB. GPU {index} has a total capacity")


@on_each
def test_a_checkpoint_keeps_and_restores_the_random_streams_of_it(requested, index, cuda, tmp_path):
    config = tiny(tmp_path, device=requested)
    device = assembly.prepare_process(config)
    device.seed(7)
    state = state_of(config, device)
    kept = checkpoint.capture(state, {}, run_id="r", journal_offset=0, journal_digest="")
    after_cpu, after_cuda = torch.rand(3), torch.rand(3, generator=cuda.gpus[index].generator)

    device.seed(8)
    torch.rand(5, generator=cuda.gpus[index].generator)
    checkpoint.restore(checkpoint.read(kept), state, {})

    assert torch.equal(torch.rand(3), after_cpu)
    assert torch.equal(torch.rand(3, generator=cuda.gpus[index].generator), after_cuda)


@on_each
def test_a_run_that_was_stopped_resumes_on_it(requested, index, cuda, tmp_path):
    config = tiny(tmp_path / "stopped", device=requested, precision="fp16")
    whole = train(tiny(tmp_path / "whole", device=requested, precision="fp16"))
    assert train(config, stopping=stop_at(5)).status is RunStatus.INTERRUPTED

    resumed = train(config)

    assert resumed.resumed_at == (5,)
    assert resumed.weights_fingerprint == whole.weights_fingerprint
    assert resumed.final["val/loss"] == whole.final["val/loss"]
    assert not list((folder_of(config) / "checkpoints").glob("*"))


@on_each
def test_check_examines_the_model_on_it(requested, index, cuda, tmp_path):
    checkup = checking.examine(tiny(tmp_path, device=requested))

    assert not is_wrong(checkup.findings), [f for f in checkup.findings if is_wrong([f])]
    assert any(f"trainable parameters, on cuda:{index}" in finding.what for finding in checkup.findings)
    assert only_used(cuda, index)


@on_each
def test_verify_compares_gradients_on_it(requested, index, cuda, tmp_path):
    model = {"norm": False, "dropout": 0.0}

    assert verifying.examine(tiny(tmp_path, device=requested, accumulate=2, model=model)).same
    assert only_used(cuda, index)


@on_each
def test_doctor_tries_each_precision_on_it(requested, index, cuda, capsys):
    cuda.start_counting()

    doctor.main(requested)

    message = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    facts = {(section, name): value for section, name, value in (line["fact"] for line in message if "fact" in line)}
    device = f"Device cuda:{index}"
    assert [line["problem"] for line in message if "problem" in line] == []
    assert facts[device, "GPU"].startswith(f"{NAMES[index]}, 0.2 GiB of memory")
    assert [facts[device, precision] for precision in ("fp32", "tf32", "bf16", "fp16")] == ["yes"] * 4
    assert only_used(cuda, index)


REFUSED = (
    "device=cuda:9 does not exist: PyTorch finds 2 CUDA devices, numbered from 0: use device=cuda:1 at most, or "
    "device=cuda for the first"
)


@pytest.mark.parametrize(
    "part", [assembly.prepare_process, checking.examine, verifying.examine], ids=lambda f: f.__module__
)
def test_a_device_that_is_not_here_is_refused_in_a_sentence(part, cuda, tmp_path):
    with pytest.raises(BadRequest) as refused:
        part(tiny(tmp_path, device="cuda:9", accumulate=2))

    assert str(refused.value) == REFUSED


def test_what_records_its_failures_records_that_sentence(cuda, tmp_path):
    config = tiny(tmp_path, device="cuda:9")

    assert train(config).reason == probed(config)[0].reason == examine([config])[0][0] == REFUSED
