"""The battery of `batchlab check`: a lab that works passes it, and each way to break it is named, with its fix."""

import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from batchlab.cli.commands import init
from batchlab.cli.main import main
from batchlab.config import RunConfig
from batchlab.hydra_app import compose
from batchlab.sweep.processes.server import WarmServer
from batchlab.training.devices.cpu import CpuDevice
from batchlab.worker.check import data_sample as samples
from batchlab.worker.check.examination import examine
from batchlab.worker.check.findings import Checkup, Level, better, lines, ok, wrong

OK, BETTER, WRONG = Level.OK, Level.BETTER, Level.WRONG
SET = """
class Pairs(torch.utils.data.Dataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        {body}
"""
OWN = "self.__dict__.setdefault('g', torch.Generator().manual_seed(0))"
AS_PAIRS = [
    ("train=(points[:train_size], inside[:train_size])", "train=Pairs(points[:train_size], inside[:train_size])"),
    ("val=(points[train_size:], inside[train_size:])", "val=Pairs(points[train_size:], inside[train_size:])"),
    ("        val=Pairs", "        model_args={'input_shape': (2,), 'num_classes': 2},\n        val=Pairs"),
]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lab as `batchlab init` makes it, as the current folder; its modules are forgotten afterwards."""
    init.write(tmp_path / "my_lab")
    monkeypatch.chdir(tmp_path / "my_lab")
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("my_data", "my_model"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path / "my_lab"


def edit(file: Path, *changes: tuple[str, str]) -> None:
    text = file.read_text()
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    file.write_text(text)


def model(*changes: tuple[str, str]) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "my_model.py", *changes)


def data(*changes: tuple[str, str]) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "my_data.py", *changes)


def pairs(body: str) -> Callable[[Path], None]:
    """The data as a Dataset, whose `__getitem__` is `body`."""

    def change(folder: Path) -> None:
        edit(folder / "my_data.py", *AS_PAIRS, ("\n\ndef load(", SET.format(body=body) + "\n\ndef load("))

    return change


@functools.cache  # every lab composes to the same, and Hydra takes as long as the rest
def composed(*overrides: str) -> RunConfig:
    return compose(["device=cpu", *overrides])


def found(*overrides: str) -> Checkup:
    return examine(composed(*overrides))


def of(checkup: Checkup, *levels: Level) -> list[tuple[str, str]]:
    """Name and words of the findings of these levels."""
    return [(f.name, f"{f.what} To do: {f.advice}") for f in checkup.findings if f.level in levels]


def test_a_lab_as_it_is_made_has_nothing_wrong(lab: Path) -> None:
    checkup = found()

    assert of(checkup, WRONG, BETTER) == []
    assert [f.name for f in checkup.findings] == [
        *(
            "data",
            "model",
            "dtype",
            "shapes",
            "random",
            "alone",
            "terms",
            "BatchNorm",
            "metrics",
            "gradient",
            "speed",
            "learns",
        )
    ]
    output = {f.name: f.what for f in checkup.findings}
    assert output["data"] == "3,000 training and 1,000 validation examples of (2,) float32, () int64"
    assert output["model"] == f"Net, {2 * 32 + 32 + 32 * 2 + 2:,} trainable parameters, on cpu"
    assert output["gradient"] == "it reaches all 4 parameters"


RETURN = "        return self.layers(inputs)"
FORWARD = RETURN + "  # (examples, num_classes)"
TORCH = ("from torch import nn", "import torch\nfrom torch import nn")
NUMPY = ("from torch import nn", "import numpy as np\nfrom torch import nn")
CLASSIFY = "    return Task.classification("
MEAN_LOSS = (
    "    loss = lambda outputs, batch: torch.nn.functional.cross_entropy(outputs, batch[1]){}\n"
    "    return Task.classification(\n        loss=loss,"
)
LOSS_IN_PLACE = (
    "    entropy = torch.nn.functional.cross_entropy\n"
    "    loss = lambda outputs, batch: entropy(outputs, batch[1].clamp_(max=0), reduction='none')\n"
    "    return Task.classification(\n        loss=loss,"
)
NORM = ("            nn.ReLU(),", "            nn.BatchNorm1d(width),\n            nn.ReLU(),")
COUNTS = ("super().__init__()", "super().__init__()\n        self.steps = 0")
COUNT = "        self.steps += 1\n        return self.layers(inputs) * (1 + {})"

# The ten ways to break it that everybody finds sooner or later, and more: what is changed, the finding that must come.
BROKEN = {
    "wrong shape": (
        model(("math.prod(input_shape), width", "3, width")),
        (),
        WRONG,
        "shapes",
        "mat1 and mat2 .*my_model",
    ),
    "a scalar that is no mean": (
        data((CLASSIFY, MEAN_LOSS.format(".square()"))),
        (),
        BETTER,
        "loss",
        "treated as one of the batch as a whole .*give their number with count=",
    ),
    "no gradient": (
        model((FORWARD, RETURN + ".detach()")),
        (),
        WRONG,
        "gradient",
        r"loss has no autograd graph.*\.detach",
    ),
    "squeezed": (
        model((FORWARD, RETURN + ".squeeze()")),
        (),
        WRONG,
        "alone",
        r"a single example gives outputs of shape \(2,\), but \(8, 2\) in a batch.*squeeze",
    ),
    "micro-batch 1": (
        model(NORM),
        ("micro_batch_size=1", "batch_size=4"),
        WRONG,
        "BatchNorm",
        r"makes a micro-batch of 1 example, and BatchNorm \(layer 'layers\.2'\) cannot train on one.*GroupNorm",
    ),
    "slow data": (
        pairs("import time; time.sleep(0.02); return self.x[i], self.y[i]"),
        (),
        BETTER,
        "speed",
        r"slow data: reading takes [\d.]+ ms per example, .*; every point of a sweep first reads all of it, \d+ s",
    ),
    "another data each time": (
        data(("torch.Generator().manual_seed(0)", "torch.default_generator")),
        (),
        WRONG,
        "data",
        "train has other examples when it is built again.*Generator",
    ),
    "a generator of the data's own": (
        pairs(f"g = {OWN}; return self.x[i] + torch.rand(2, generator=g), self.y[i]"),
        (),
        WRONG,
        "data",
        r"training cannot use it: train\[0\] differs between two reads",
    ),
    "noise in eval mode": (
        model(TORCH, (FORWARD, RETURN + " + torch.rand(1)")),
        (),
        BETTER,
        "random",
        "eval mode draws random numbers: every validation uses the same ones.*self.training",
    ),
    "an operation in place": (
        model((FORWARD, "        inputs.sub_(0.1)\n" + RETURN)),
        (),
        BETTER,
        "input",
        r"the model's own forward changes its input in place.*write x = x - 0\.1",
    ),
    "a layer in place": (
        model(("nn.Flatten(),", "nn.Flatten(),\n            nn.LeakyReLU(inplace=True),")),
        (),
        BETTER,
        "input",
        r"LeakyReLU 'layers\.1' changes its input in place.*inplace=False",
    ),
    "a loss in place": (
        data((CLASSIFY, LOSS_IN_PLACE)),
        (),
        BETTER,
        "input",
        "the task's loss changes its input in place",
    ),
    "a generator that nobody seeds": (
        model(NUMPY, (FORWARD, RETURN + " * np.random.default_rng().random()")),
        (),
        WRONG,
        "random",
        "two equal passes in eval mode differ although all seeds are the same",
    ),
    "float64": (
        data(("inside = (", "points = points.double()\n    inside = (")),
        (),
        WRONG,
        "dtype",
        "is float64, .*x.float",
    ),
    "a float64 model": (
        model(("        )\n\n    def forward", "        ).double()\n\n    def forward")),
        (),
        WRONG,
        "dtype",
        "the weights are float64 .*precision",
    ),
    "labels from 1": (
        data((".long()", ".long() + 1")),
        (),
        WRONG,
        "labels",
        "from 1 to 2, and no example has class 0.*y - 1",
    ),
    "labels that are no integers": (
        data((".long()", ".float()")),
        (),
        WRONG,
        "labels",
        "float32, but a class must be an int",
    ),
    "labels beyond the outputs": (
        model(("nn.Linear(width, num_classes)", "nn.Linear(width, 1)")),
        (),
        WRONG,
        "labels",
        "from 0 to 1, but the model has 1 outputs",
    ),
    "one class": (data((".sum(dim=1) < 2)", ".sum(dim=1) < 99)")), (), WRONG, "labels", "every example has class 1"),
    "stateful forward": (
        model(COUNTS, (FORWARD, COUNT.format("0.1 * self.steps"))),
        (),
        WRONG,
        "state",
        r"changes its own state, .*: steps went from \d to \d.*register_buffer",
    ),
    "a counter that changes nothing": (
        model(COUNTS, (FORWARD, COUNT.format("0"))),
        (),
        BETTER,
        "state",
        r"state that checkpoints do not store: steps went from \d+ to \d+",
    ),
    "python objects": (
        pairs("return str(self.x[i].tolist()), self.y[i]"),
        (),
        WRONG,
        "data",
        r"train\[0\]\[0\] is a str \('\[.*\), not a tensor or a number.*token",
    ),
    "examples that mix": (
        model((FORWARD, "        return self.layers(inputs - inputs.mean(dim=0))")),
        (),
        WRONG,
        "alone",
        "depends on the other examples of the batch: the model's own forward",
    ),
    "a layer that mixes": (
        model(("            nn.ReLU(),", "            nn.Softmax(dim=0),")),
        (),
        WRONG,
        "alone",
        r"depends on the other examples of the batch: Softmax 'layers\.2'",
    ),
    "one example that does not pass": (
        model((FORWARD, "        assert len(inputs) > 1\n" + RETURN)),
        (),
        WRONG,
        "alone",
        "forward fails for a single example.*squeeze",
    ),
    "a loss divided by its number": (
        data((CLASSIFY, MEAN_LOSS.format(".expand(len(outputs))"))),
        (),
        WRONG,
        "loss",
        "for the same outputs, the loss of an example depends on the other examples",
    ),
    "an idle parameter": (
        model(("super().__init__()", "super().__init__()\n        self.idle = nn.Linear(2, 2)")),
        (),
        BETTER,
        "gradient",
        r"no gradient reaches idle\.weight, idle\.bias: 2 of 6 parameters",
    ),
    "a lazy layer": (
        model(("nn.Linear(math.prod(input_shape), width)", "nn.LazyLinear(width)")),
        (),
        WRONG,
        "model",
        r"has a lazy parameter, 'layers\.1\.weight', whose size is unknown",
    ),
    "nan in the data": (
        data(("inside = (", "points[::7] = float('nan')\n    inside = (")),
        (),
        WRONG,
        "data",
        "nan or inf",
    ),
    "a loader": (
        data(("train=(points[:train_size], inside[:train_size])", "train=torch.utils.data.DataLoader(points)")),
        (),
        WRONG,
        "data",
        "train is a DataLoader",
    ),
    "an error in the data": (
        data(("generator = ", "generator = 1 / 0 + ")),
        (),
        WRONG,
        "data",
        r"ZeroDivisionError: .*my_data\.py, line \d+, in load",
    ),
    "an error in the model": (
        model(("math.prod(input_shape)", "input_shape['x']")),
        (),
        WRONG,
        "model",
        r"TypeError: .*my_model\.py",
    ),
    "few examples for BatchNorm": (model(NORM), ("batch_size=4",), BETTER, "BatchNorm", "come from only 4 examples"),
    "an averaged metric": (
        data((CLASSIFY, CLASSIFY + "\n        metrics=lambda out, batch: {'accuracy': out.mean()},")),
        (),
        WRONG,
        "metrics",
        r"'accuracy' is of shape \(\) for 8 examples",
    ),
    "a learning rate at which nothing moves": (
        data(),
        ("lr=1e-9",),
        BETTER,
        "learns",
        r"of 64 examples does not fall when .* only on them: from (\d\.\d+) to \1 in 50 steps at learning rate 1e-09",
    ),
    "a learning rate that explodes": (
        data(),
        ("lr=1e9",),
        BETTER,
        "learns",
        "the loss of 64 examples goes from .* a smaller lr",
    ),
    "a metric without direction": (
        data((CLASSIFY, CLASSIFY + "\n        higher_is_better={},")),
        (),
        BETTER,
        "metrics",
        "unknown whether a higher accuracy is better",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named_with_how_to_fix_it(name: str, lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "SECONDS", 0.1)  # of reading, in place of 1
    change, overrides, level, finding, words = BROKEN[name]
    change(lab)

    checkup = found(*overrides)

    reported = of(checkup, WRONG, BETTER)
    assert [f for f, _ in reported] == [finding], reported
    assert re.search(words, reported[0][1]), reported
    assert reported == of(checkup, level)


def test_data_that_draw_random_numbers_now_and_then_are_known_to_be_random(lab: Path) -> None:
    pairs("return (self.x[i] + torch.rand(2) if i > 500 else self.x[i]), self.y[i]")(lab)

    _, sample, _ = samples.sampled(composed(), CpuDevice())

    assert sample is not None
    assert sample.is_random


def test_the_output_is_a_line_for_each_finding_and_what_it_comes_to() -> None:
    output = lines(
        Checkup((ok("data", "4 examples"), wrong("loss", "is \x1b[31mone\nnumber", "none")), ("alone",)), "train it"
    )

    assert output == [
        "ok      data  4 examples",
        "WRONG   loss  is [31mone number",
        "              To do: none",
        "",
        "1 thing is wrong. Not tested because of this: alone.",
    ]
    assert lines(Checkup((better("speed", "slow", "fix it"),)), "train it")[-1] == (
        "Nothing is wrong, 1 could be better. Next: train it"
    )


def test_the_command_reports_it_and_its_exit_code_shows_it(
    lab: Path, server: WarmServer, capfd: pytest.CaptureFixture[str]
) -> None:
    server.warm_up()
    before = sorted(lab.rglob("*"))

    assert main(["check", "device=cpu"]) == 0
    output = capfd.readouterr().out
    assert re.search(r"^ok +accumulate +2 micro-batches give the gradient of the whole batch", output, re.MULTILINE)
    assert re.search(r"^ok +sweep +a run with these options would start", output, re.MULTILINE)
    assert [p for p in sorted(lab.rglob("*")) if "__pycache__" not in p.parts] == before

    assert main(["check", "device=cpu", "target.metric=val/nothing", "target.value=1"]) == 1
    assert re.search(r"^WRONG +sweep +target.metric=val/nothing is not measured", capfd.readouterr().out, re.MULTILINE)

    model(NORM, COUNTS, (FORWARD, COUNT.format("0.1 * self.steps")))(lab)
    assert main(["check", "device=cpu"]) == 1
    assert (
        "Not tested because of this: alone, terms, BatchNorm, metrics, gradient, speed, learns."
        in capfd.readouterr().out
    )

    assert main(["check", "batch_size=8,16"]) == 2
    assert "a grid of 2 points, and `batchlab check` takes one point" in capfd.readouterr().err
    assert main(["check", "--force"]) == 2
    assert "force is for runs, and `batchlab check` makes none" in capfd.readouterr().err


def test_a_model_that_ends_its_process_is_a_finding(
    lab: Path, server: WarmServer, capfd: pytest.CaptureFixture[str]
) -> None:
    server.warm_up()
    model((FORWARD, "        __import__('os')._exit(7)"))(lab)

    assert main(["check", "device=cpu"]) == 1

    assert re.search(r"^WRONG +process +passing a few examples failed: .*exit code 7", capfd.readouterr().out)


def test_batch_norm_makes_accumulating_another_thing_and_that_is_reported(
    lab: Path, server: WarmServer, capfd: pytest.CaptureFixture[str]
) -> None:
    server.warm_up()
    model(NORM)(lab)

    assert main(["check", "device=cpu"]) == 0

    assert re.search(
        r"^better +accumulate +2 micro-batches give another gradient than the whole batch \(BatchNorm1d; ",
        capfd.readouterr().out,
        re.MULTILINE,
    )
