"""The battery of `batchlab check`: a lab that works passes it, and each way to break it is named, with its fix."""

import functools
import itertools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from batchlab.cli.commands import init
from batchlab.cli.main import main
from batchlab.config import RunConfig
from batchlab.hydra_app import compose
from batchlab.sweep.processes.server import WarmServer
from batchlab.training.devices.cpu import CpuDevice
from batchlab.worker.check import data_sample as samples
from batchlab.worker.check import examination
from batchlab.worker.check.examination import examine
from batchlab.worker.check.findings import SECONDS, Checkup, Level, better, lines, ok, summary, wrong

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

LOSS = "    return Task.classification(\n        loss=lambda outputs, batch: {},"
ENTROPY = "torch.nn.functional.cross_entropy(outputs, batch[1], reduction='none')"
PAIRS = LOSS.format("torch.nn.functional.cross_entropy(outputs @ outputs.T, outputs.new_zeros(len(outputs)).long(){})")
F1 = "(2 * (out.argmax(1) * b[1]).sum() / (out.argmax(1) + b[1]).sum())"
OWN_OPTIMIZER = "\n\ndef own(params, lr, weight_decay, **others):\n    return {}\n"
CHANGES_ITS_LR = """

class Decayed(torch.optim.SGD):
    def __init__(self, params, lr, weight_decay, **others):
        super().__init__(params, lr=lr)

    def step(self, closure=None):
        super().step(closure)
        self.param_groups[0]["lr"] *= 0.99
"""


def with_loss(loss: str, *, before: str = "", more: str = "") -> Callable[[Path], None]:
    """The data with this loss, a function of `outputs` and `batch`."""
    return data((CLASSIFY, before + LOSS.format(loss) + more))


def groups(groups: str) -> Callable[[Path], None]:
    """The data with `parameter_groups`."""
    return data((CLASSIFY, CLASSIFY + f"\n        parameter_groups=lambda model: {groups},"))


def optimizer(text: str) -> Callable[[Path], None]:
    """An optimizer next to the model."""

    def change(folder: Path) -> None:
        model(TORCH)(folder)
        file = folder / "my_model.py"
        file.write_text(file.read_text() + text)

    return change


# Ways to break it: what is changed, and the one finding that must come.
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
        "the weights are float64 .*, and the data is not: RuntimeError",
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
    "a softmax before cross-entropy": (
        model((FORWARD, RETURN + ".softmax(1)")),
        (),
        WRONG,
        "loss",
        "a softmax is applied twice.*remove the softmax",
    ),
    "a softmax before a mean of cross-entropy": (
        lambda folder: (
            model((FORWARD, RETURN + ".softmax(1)"))(folder),
            data((CLASSIFY, MEAN_LOSS.format("")))(folder),
        ),
        (),
        WRONG,
        "loss",
        "a softmax is applied twice",
    ),
    "a sigmoid before its loss": (
        lambda folder: (
            model((FORWARD, RETURN + ".sigmoid()"))(folder),
            with_loss(
                "torch.nn.functional.binary_cross_entropy_with_logits("
                "outputs, torch.nn.functional.one_hot(batch[1], 2).float(), reduction='none').mean(1)"
            )(folder),
        ),
        (),
        WRONG,
        "loss",
        "a sigmoid is applied twice.*remove the sigmoid",
    ),
    "a likelihood of logits": (
        with_loss("torch.nn.functional.nll_loss(outputs, batch[1], reduction='none')"),
        (),
        WRONG,
        "loss",
        "the outputs are no log-probabilities.*log_softmax",
    ),
    "a parameter in the loss": (
        with_loss(
            ENTROPY.replace("(outputs,", "(outputs * heat,"), before="    heat = torch.nn.Parameter(torch.ones(1))\n"
        ),
        (),
        WRONG,
        "loss",
        r"a parameter of shape \(1,\) that neither the model nor the loss holds.*nn\.Module",
    ),
    "a loss of pairs as a vector": (
        data((CLASSIFY, PAIRS.format(", reduction='none'"))),
        (),
        WRONG,
        "loss",
        r"depends on the other examples.*reduction='batch'",
    ),
    "a loss that balances": (
        with_loss(f"{ENTROPY} + 0.1 * outputs.softmax(1).mean(0).square().sum()"),
        (),
        BETTER,
        "alone",
        "a part of the batch as a whole, the same for all of its terms",
    ),
    "a loss that is a number": (with_loss(f"{ENTROPY}.mean().item()"), (), WRONG, "loss", "loss returns a float"),
    "a loss for each pair": (
        lambda folder: (
            model((FORWARD, RETURN + "[:, :1]"))(folder),
            with_loss("(outputs - batch[1]).square()", more=" labels=None,")(folder),
        ),
        (),
        WRONG,
        "loss",
        "broadcasting has combined every output with every target",
    ),
    "a count that is no sum": (
        with_loss(ENTROPY, more="\n        count=lambda batch: 8,"),
        (),
        WRONG,
        "count",
        "count gives 8 terms for a whole batch, but 64 for its parts",
    ),
    "ignored labels that are counted": (
        with_loss(
            ENTROPY.replace("reduction", "ignore_index=-1, reduction"),
            before="    inside[::5] = -1\n",
            more="\n        labels=None,",
        ),
        (),
        WRONG,
        "count",
        r"have the label -1 and a loss of exactly 0.*count=lambda batch: \(batch\[1\] != -1\)",
    ),
    "an optimizer with a learning rate of its own": (
        optimizer(OWN_OPTIMIZER.format("torch.optim.SGD(params, lr=0.03)")),
        ("optimizer._target_=my_model.own",),
        WRONG,
        "optimizer",
        "the optimizer has learning rate 0.03, whatever lr is.*lr / 10",
    ),
    "a group with a learning rate of its own": (
        optimizer(
            OWN_OPTIMIZER.format("torch.optim.SGD([{'params': params[:2], 'lr': 0.03}, {'params': params[2:]}], lr)")
        ),
        ("optimizer._target_=my_model.own",),
        BETTER,
        "optimizer",
        "parameter group 0 has learning rate 0.03, whatever lr is",
    ),
    "a group's learning rate that is no multiple": (
        groups("[{'params': model.layers[1].parameters(), 'lr': 1e-4}, {'params': model.layers[3].parameters()}]"),
        (),
        BETTER,
        "optimizer",
        r"group 0 is trained at 0\.0001 times the learning rate of the run.*0\.1 for a tenth",
    ),
    "a layer in no group": (
        groups("[{'params': model.layers[3].parameters()}]"),
        (),
        BETTER,
        "optimizer",
        r"in no group of the optimizer are not trained: layers\.1\.weight",
    ),
    "an optimizer with a schedule of its own": (
        optimizer(CHANGES_ITS_LR),
        ("optimizer._target_=my_model.Decayed",),
        BETTER,
        "optimizer",
        "its step changes the learning rate of its groups itself",
    ),
    "a learning rate of SGD for Adam": (
        data(),
        ("optimizer=adamw", "lr=0.1"),
        BETTER,
        "optimizer",
        r"lr=0\.1 is large for AdamW?, which changes each weight by about lr in a step",
    ),
    "an F1 of each batch": (
        data(
            (
                CLASSIFY,
                CLASSIFY
                + f"\n        metrics=lambda out, b: {{'f1': {F1}.expand(len(out))}}, higher_is_better={{'f1': True}},",
            )
        ),
        (),
        WRONG,
        "metrics",
        "'f1' depends on the evaluation batch.*whole_metrics",
    ),
    "an F1 of the batch": (
        data(
            (CLASSIFY, CLASSIFY + f"\n        metrics=lambda out, b: {{'f1': {F1}}}, higher_is_better={{'f1': True}},")
        ),
        (),
        WRONG,
        "metrics",
        r"'f1' is of shape \(\) for 8 examples.*whole_metrics",
    ),
    "a target in percent": (
        data(),
        ("target.metric=val/accuracy", "target.value=97"),
        WRONG,
        "target",
        "val/accuracy is never above 1.*a fraction and not a percentage",
    ),
    "a target below zero": (
        data(),
        ("target.metric=val/loss", "target.value=-0.5"),
        WRONG,
        "target",
        "val/loss is never below 0",
    ),
    "several labels for an example": (
        data((".long()", ".long()[:, None].expand(-1, 3)")),
        (),
        WRONG,
        "labels",
        r"are \(3000, 3\) int64.*Task\.multilabel",
    ),
    "a mask as a label": (
        data((".long()", ".long()[:, None, None].expand(-1, 4, 4)")),
        (),
        WRONG,
        "labels",
        r"a class for each place.*Task\.segmentation",
    ),
    "labels in one column": (
        data((".long()", ".long()[:, None]")),
        (),
        WRONG,
        "labels",
        r"\(3000, 1\) int64, but a class must be an integer.*",
    ),
    "one-hot labels": (
        data((".long()", ".long()[:, None] == torch.arange(2)")),
        (),
        WRONG,
        "labels",
        r"y\.argmax\(1\), as these are one-hot",
    ),
    "half weights": (
        model(
            ("        )\n\n    def forward", "        ).bfloat16()\n\n    def forward"),
            (FORWARD, "        return self.layers(inputs.bfloat16()).float()"),
        ),
        (),
        WRONG,
        "dtype",
        "the weights are bfloat16 .*use precision=bf16",
    ),
    "float64 everywhere": (
        lambda folder: (
            data(("inside = (", "points = points.double()\n    inside = ("))(folder),
            model(("        )\n\n    def forward", "        ).double()\n\n    def forward"))(folder),
        ),
        (),
        BETTER,
        "dtype",
        "the weights are float64 .*nothing if that is meant",
    ),
    "weights of zero": (
        model((FORWARD, "        return self.layers(inputs) * 0")),
        (),
        WRONG,
        "gradient",
        "the gradient is zero everywhere",
    ),
    "a root of zero": (
        model((FORWARD, RETURN + " + (self.layers[1].weight.sum() * 0).sqrt()")),
        (),
        WRONG,
        "gradient",
        "the gradient is nan or inf at",
    ),
    "a norm without statistics": (
        model(("            nn.ReLU(),", "            nn.BatchNorm1d(width, track_running_stats=False),")),
        (),
        WRONG,
        "alone",
        "in eval mode forward fails for a single example: ValueError",
    ),
    "inputs and labels of other lengths": (
        data(("inside[:train_size])", "inside[: train_size - 1])")),
        (),
        WRONG,
        "data",
        "train has tensors of 3000, 2999 examples",
    ),
    "examples that do not stack": (
        pairs("return self.x[i][: 1 + i % 2], self.y[i]"),
        (),
        WRONG,
        "data",
        "examples of the task's train set cannot be stacked: .* To do: Pad and mask .* or give collate=",
    ),
    "an argument that Task does not have": (
        data((CLASSIFY, CLASSIFY + "\n        collate_fn=list,")),
        (),
        WRONG,
        "data",
        r"unexpected keyword argument 'collate_fn': did you mean 'collate'\? \(my_data.py, line \d+",
    ),
    "an array": (
        data(("train=(points[:train_size]", "train=(points[:train_size].numpy()")),
        (),
        WRONG,
        "data",
        "train contains a ndarray.*torch.from_numpy",
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
    assert "argmax(1)" not in reported[0][1] or name == "one-hot labels"


def test_data_that_draw_random_numbers_now_and_then_are_known_to_be_random(lab: Path) -> None:
    pairs("return (self.x[i] + torch.rand(2) if i > 500 else self.x[i]), self.y[i]")(lab)

    _, sample, _ = samples.sampled(composed(), CpuDevice())

    assert sample is not None
    assert sample.is_random


@pytest.mark.usefixtures("lab")
def test_trials_that_would_take_too_long_are_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.chain([0.0, 10.0], itertools.repeat(30.0))  # the first pass takes 20 s
    monkeypatch.setattr(examination, "time", SimpleNamespace(monotonic=lambda: next(ticks)))

    checkup = found()

    costs = {trial.name: trial.passes for trial in examination.TRIALS}
    assert checkup.too_slow == tuple(name for name in costs if 30 + 20 * costs[name] > SECONDS)
    assert {"learns", "random"} <= {*checkup.too_slow}
    assert {"data", "shapes", "metrics", "gradient"} <= {finding.name for finding in checkup.findings}
    assert checkup.untried == ()


def test_the_output_is_a_line_for_each_finding_and_what_it_comes_to() -> None:
    assert lines(ok("data", "4 examples")) == ["ok      data        4 examples"]
    assert lines(wrong("loss", "is \x1b[31mone\nnumber", "none")) == [
        "WRONG   loss        is [31mone number",
        "                    To do: none",
    ]
    checkup = Checkup((ok("data", "4 examples"), wrong("loss", "a", "b")), ("alone",), ("learns",))
    assert summary(checkup, "train it") == (
        "1 thing is wrong. Not tested because of this: alone. Not tested within 60 s: learns."
    )
    assert summary(Checkup((better("speed", "slow", "fix it"),)), "train it") == (
        "Nothing is wrong, 1 could be better. Next: train it"
    )


def test_a_long_finding_is_shortened_and_a_repeated_word_is_written_once() -> None:
    (line,) = lines(ok("data", "3 of " + "Data, " * 300 + "end"))
    assert line == "ok      data        3 of Data, ... (300 times) end"
    (line,) = lines(ok("data", "begin " + "".join(f"word{i} " for i in range(500)) + "end"))
    assert 600 < len(line) < 730
    assert line.endswith(" end")


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
        "Not tested because of this: alone, terms, objective, halves, target, accumulate, sweep."
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

    output = " ".join(capfd.readouterr().out.split())
    assert "WRONG process passing a few examples forward and backward for the first time failed: " in output
    assert "exit code 7" in output

    data((CLASSIFY, "    __import__('os')._exit(7)\n" + CLASSIFY))(lab)
    assert main(["check", "device=cpu"]) == 1
    output = " ".join(capfd.readouterr().out.split())
    assert re.search(r"WRONG process building the data \(my_data.load\) twice, .* failed: .*exit code 7", output)


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


def test_dropout_makes_accumulating_no_other_thing_but_for_its_random_numbers(
    lab: Path, server: WarmServer, capfd: pytest.CaptureFixture[str]
) -> None:
    server.warm_up()
    dropout = "            nn.Dropout(0.3),"  # two, since a single one draws the same numbers in micro-batches
    relu = "            nn.ReLU(),"
    model((relu, f"{dropout}\n{relu}\n{dropout}"))(lab)

    assert main(["check", "device=cpu"]) == 0

    assert re.search(
        "^ok +accumulate +2 micro-batches give .* of the whole batch, but for the random numbers of Dropout$",
        capfd.readouterr().out,
        re.MULTILINE,
    )
