"""What PyTorch can do here, asked in processes of their own: `python -m batchlab.cli.torch_probe [cuda|cuda:N]`.

Without a device the CPU is tried and the GPUs are counted. Each GPU has its own process: one that fails takes no other
with it, and none is left with a context on every GPU of a machine that others use too.

A PyTorch that cannot be imported, or that dies on the way, must not take `doctor` with it. Each finding is a line of
JSON on stdout, written when it is found, so that what was found before a crash is not lost.
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
GAIN_WORTH_TELLING = 1.1  # below it the ratio of two timings on a machine in use is no news


def main(device: str | None = None) -> None:
    """Asks one thing after the other; the last `doing` names what a crash interrupted."""
    _tell(doing="importing torch")
    import torch

    from batchlab.training.devices.named import device_named, visible_devices

    if device is not None:
        _tell(doing=f"using {device}")
        _gpu(device)
        return
    _fact("PyTorch", "torch", f"{torch.__version__}, {_build(torch.version.cuda, torch.version.hip)}")
    torch.set_num_threads(1)  # as a run does unless told otherwise
    _tell(doing="training a step on the CPU")
    _precisions(device_named("cpu"))
    _tell(doing="timing CPU threads")
    _threads(len(os.sched_getaffinity(0)))
    _tell(doing="asking for CUDA devices")
    count = visible_devices()
    built = torch.version.cuda is not None or torch.version.hip is not None
    _tell(cuda_build=built, cuda_available=count > 0, cuda_devices=count)
    _tell(doing="importing torchvision")
    _torchvision()
    _tell(doing="")


def _torchvision() -> None:
    try:
        import torchvision

        _fact("PyTorch", "torchvision", f"{torchvision.__version__}, imports")
    except Exception as error:
        # Whatever a mismatched build raises: ImportError, RuntimeError (no operator torchvision::nms), OSError.
        _fact("PyTorch", "torchvision", "does not import")
        lost = "models of torchvision, MNIST, Fashion-MNIST, CIFAR and SVHN cannot be used"
        _problem(False, f"torchvision does not import, so {lost}: {_line(error)}")


def _gpu(asked: str) -> None:
    """As a run with `device=<asked>` begins on it."""
    from batchlab.training.devices.named import device_named
    from batchlab.worker.device_trial import why_unusable

    unusable = why_unusable(asked)
    if unusable is not None:
        _problem(True, f"device={asked} cannot be used: {'; '.join(unusable)}")
        return
    device = device_named(asked)
    facts = device.facts()
    _fact(
        f"Device {device}",
        "GPU",
        f"{facts['device_name']}, {facts['device_bytes'] / 2**30:.1f} GiB of memory "
        f"({(device.free_bytes() or 0) / 2**30:.1f} free), compute capability {facts['compute_capability']}",
    )
    _precisions(device)


def _precisions(device: "Device") -> None:
    """Each precision: whether a training step works in it, and on the CPU how fast it is.

    A GPU's speed is not told: the default model is too small to fill one.
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
            told = "yes"
            if device.total_bytes() is None and name != "fp32":
                ratio = statistics.median(fp32.timed() / steps.timed() for _ in range(ROUNDS))
                told = f"yes, at {ratio:.2f} times the speed of fp32 (median of {ROUNDS}, batch size 256)"
            _fact(f"Device {device}", name, told)


def _threads(cores: int) -> None:
    """Whether more threads than one make the default model faster here."""
    import torch

    from batchlab.training.devices.named import device_named

    if cores == 1:
        _fact("Device cpu", "threads", "1 CPU core may be used, so threads=1 is all there is")
        return
    gains = {}
    for batch_size in (32, 256):
        steps = _Steps(device_named("cpu"), "fp32", batch_size)
        steps.run(3)
        ratios = []
        for _ in range(ROUNDS):  # alternating, so that what else the machine does meets both
            torch.set_num_threads(1)
            alone = steps.timed()
            torch.set_num_threads(cores)
            ratios.append(alone / steps.timed())
        gains[batch_size] = statistics.median(ratios)
    torch.set_num_threads(1)
    measured = " and ".join(f"{gain:.2f} (batch size {size})" for size, gain in gains.items())
    helps = max(gains.values()) >= GAIN_WORTH_TELLING
    verdict = f"threads={cores} helps the default model" if helps else "more than 1 does not help the default model"
    _fact("Device cpu", "threads", f"{verdict}: {cores} have {measured} times the speed of 1 (median of {ROUNDS})")


class _Steps:
    """Training steps of the default model's shape, on random numbers of the digits' shape."""

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
    _tell(fact=[section, name, value])


def _problem(prevents: bool, what: str) -> None:
    _tell(problem=[prevents, what])


def _tell(**finding: object) -> None:
    say(json.dumps(finding))


if __name__ == "__main__":
    import sys

    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    main(*sys.argv[1:2])
