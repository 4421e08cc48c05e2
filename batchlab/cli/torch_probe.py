"""Tests what PyTorch can do here, in separate processes: `python -m batchlab.cli.torch_probe [cuda|cuda:N]`.

Without a device the CPU is tested and the GPUs are counted. Each GPU has its own process: its failure does not affect
the others, and no process holds a context on every GPU of a machine that others use too.

`doctor` must survive a PyTorch that cannot be imported or that crashes. So each finding is written to stdout at once,
as a line of JSON, and is not lost in a crash.
"""

import itertools
import json
import os
import statistics
import time
from typing import TYPE_CHECKING

from batchlab.cli.output import say
from batchlab.config.options import PRECISIONS
from batchlab.config_folder import config_folder
from batchlab.errors import BadRequest

if TYPE_CHECKING:
    from batchlab.training.devices.device import Device

ROUNDS = 7
SECONDS_PER_ROUND = 0.03
LEAST_GAIN = 1.1  # a smaller ratio of two timings on a busy machine is not reported


def main(device: str | None = None) -> None:
    """Runs all tests; the last `doing` names the one that a crash interrupted."""
    _report(doing="importing torch")
    import torch

    from batchlab.training.devices.named import device_named, visible_devices

    if device is not None:
        _report(doing=f"using {device}")
        _gpu(device)
        return
    _fact("PyTorch", "torch", f"{torch.__version__}, {_build(torch.version.cuda, torch.version.hip)}")
    torch.set_num_threads(1)  # the default of a run
    _report(doing="training a step on the CPU")
    _precisions(device_named("cpu"))
    _report(doing="timing CPU threads")
    _threads(len(os.sched_getaffinity(0)))
    _report(doing="asking for CUDA devices")
    count = visible_devices()
    built = torch.version.cuda is not None or torch.version.hip is not None
    _report(cuda_build=built, cuda_available=count > 0, cuda_devices=count)
    _report(doing="importing torchvision")
    _torchvision()
    _report(doing="")


def _torchvision() -> None:
    try:
        import torchvision

        _fact("PyTorch", "torchvision", f"{torchvision.__version__}, imports")
    except Exception as error:
        # Whatever a mismatched build raises: ImportError, RuntimeError (no operator torchvision::nms), OSError.
        _fact("PyTorch", "torchvision", "does not import")
        lost = "models of torchvision, MNIST, Fashion-MNIST, CIFAR and SVHN cannot be used"
        _problem(False, f"torchvision does not import, so {lost}: {_line(error)}")


def _gpu(name: str) -> None:
    """Starts on the GPU as a run with `device=<name>` does."""
    from batchlab.training.devices.named import device_named
    from batchlab.worker.device_trial import why_unusable

    unusable = why_unusable(name)
    if unusable is not None:
        _problem(True, f"device={name} cannot be used: {'; '.join(unusable)}")
        return
    device = device_named(name)
    facts = device.facts()
    _fact(
        f"Device {device}",
        "GPU",
        f"{facts['device_name']}, {facts['device_bytes'] / 2**30:.1f} GiB of memory "
        f"({(device.free_bytes() or 0) / 2**30:.1f} free), compute capability {facts['compute_capability']}",
    )
    _precisions(device)


def _precisions(device: "Device") -> None:
    """Tests each precision: whether a training step works, and on the CPU how fast it is.

    A GPU's speed is not measured: the default model is too small to keep one busy.
    """
    fp32 = _Steps(device, "fp32", batch_size=256)
    for name in PRECISIONS:
        try:
            steps = _Steps(device, name, batch_size=256)
            steps.run(3)
        except BadRequest as refusal:
            _fact(f"Device {device}", name, f"no: {_line(refusal)}")
        except RuntimeError as error:
            _fact(f"Device {device}", name, f"no: {_line(error)}")
            if name == "fp32":
                _problem(True, f"a training step on {device} fails: {_line(error)}")
        else:
            result = "yes"
            if device.total_bytes() is None and name != "fp32":
                ratio = statistics.median(fp32.timed() / steps.timed() for _ in range(ROUNDS))
                result = f"yes, at {ratio:.2f} times the speed of fp32 (median of {ROUNDS}, batch size 256)"
            _fact(f"Device {device}", name, result)


def _threads(cores: int) -> None:
    """Tests whether more than one thread makes the default model faster here."""
    import torch

    from batchlab.training.devices.named import device_named

    if cores == 1:
        _fact("Device cpu", "threads", "1 CPU core may be used, so threads=1 is the only choice")
        return
    gains = {}
    for batch_size in (32, 256):
        steps = _Steps(device_named("cpu"), "fp32", batch_size)
        steps.run(3)
        ratios = []
        for _ in range(ROUNDS):  # alternating, so that other load affects both
            torch.set_num_threads(1)
            alone = steps.timed()
            torch.set_num_threads(cores)
            ratios.append(alone / steps.timed())
        gains[batch_size] = statistics.median(ratios)
    torch.set_num_threads(1)
    measured = " and ".join(f"{gain:.2f} (batch size {size})" for size, gain in gains.items())
    helps = max(gains.values()) >= LEAST_GAIN
    verdict = f"threads={cores} helps the default model" if helps else "more than 1 does not help the default model"
    _fact("Device cpu", "threads", f"{verdict}: {cores} reach {measured} times the speed of 1 (median of {ROUNDS})")


class _Steps:
    """Training steps of a model with the default model's shape, on random data with the digits' shape."""

    def __init__(self, device: "Device", precision: str, batch_size: int) -> None:
        import torch
        import yaml
        from torch import nn

        from batchlab.task import Task
        from batchlab.training.devices.precision import Precision
        from batchlab.training.losses import Losses
        from batchlab.training.updates.eager import Eager

        shape = yaml.safe_load((config_folder() / "model" / "mlp.yaml").read_text(encoding="utf-8"))
        widths = [64, *[int(shape["width"])] * int(shape["depth"])]
        layers = [part for i, o in itertools.pairwise(widths) for part in (nn.Linear(i, o), nn.ReLU())]
        model = nn.Sequential(*layers, nn.Linear(widths[-1], 10)).to(device.torch_device)
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(batch_size, 64, generator=generator).to(device.torch_device)
        labels = torch.randint(10, (batch_size,), generator=generator).to(device.torch_device)
        self.batch = (images, labels)
        losses = Losses(model, Task.classification(self.batch, self.batch), Precision(precision, device))
        self.precision = losses.precision
        self.step = Eager(losses, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9))
        self.per_round = 1

    def run(self, steps: int) -> float:
        """Seconds that `steps` updates took, the device's work included."""
        with self.precision.training():
            start = time.perf_counter()
            for _ in range(steps):
                outcome = self.step([self.batch])
            outcome.loss_sum.item()  # waits for the device, and raises what went wrong on it
            return time.perf_counter() - start

    def timed(self) -> float:
        """Seconds per update, over about `SECONDS_PER_ROUND`."""
        while (seconds := self.run(self.per_round)) < SECONDS_PER_ROUND / 2:
            self.per_round *= 2
        return seconds / self.per_round


def _build(cuda: str | None, hip: str | None) -> str:
    platforms = [f"{name} {version}" for name, version in (("CUDA", cuda), ("ROCm", hip)) if version]
    return f"built for {platforms[0]}" if platforms else "built without CUDA"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _fact(section: str, name: str, value: str) -> None:
    _report(fact=[section, name, value])


def _problem(prevents: bool, what: str) -> None:
    _report(problem=[prevents, what])


def _report(**finding: object) -> None:
    say(json.dumps(finding))


if __name__ == "__main__":
    import sys

    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    main(*sys.argv[1:2])
