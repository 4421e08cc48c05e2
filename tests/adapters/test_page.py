"""The examples of docs/tasks.md for Lightning and Hugging Face train as plain loops do."""

import importlib
import sys

import pytest
import torch
import torch.nn.functional as F
from pages import BLOCK, ROOT
from plain_defaults import configured
from torch.utils.data import DataLoader

from batchlab.instruments.panel import build_instruments
from batchlab.training import assembly
from batchlab.training.data.order import row, stream_seed
from batchlab.training.devices.cpu import CpuDevice

pytestmark = pytest.mark.long  # imports Lightning and transformers

STEPS, BATCH, LR = 20, 8, 0.1


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Makes a run of an example of the page, in float64, in a folder of its own."""

    def made(name, model, **changes):
        text = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
        (found,) = [block for *_, block in BLOCK.findall(text) if block.startswith(f"# {name}.py\n")]
        (tmp_path / f"{name}.py").write_text(found, encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, name, raising=False)
        config = configured(
            data={"_target_": f"{name}.load"}, model={"_target_": f"{name}.{model}", **changes},
            optimizer={"_target_": "torch.optim.SGD"}, default_epochs=None, steps=STEPS, batch_size=BATCH, lr=LR,
            weight_decay=0.0, schedule="constant", device="cpu",
        )  # fmt: skip
        run = assembly.assemble(config, assembly.build_data(config, CpuDevice()), build_instruments)
        return run, importlib.import_module(name), assembly.build_model(config, run.state.task, CpuDevice())

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield made
    torch.set_default_dtype(before)


def equal(run, theirs):
    for one, other in zip(run.state.model.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_the_lightning_module_trains_as_a_plain_loop(example):
    pytest.importorskip("lightning", reason="lightning is not installed: pip install lightning")
    run, module, theirs = example("my_lightning", "Net")
    final = {m.name: m.value for m in run.train()}

    data = module.Points()
    data.setup("fit")
    torch.manual_seed(stream_seed(0, "loader", 0) % 2**32)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=LR)
    for _, (x, y) in zip(range(STEPS), DataLoader(data.points, BATCH, shuffle=True), strict=False):
        optimizer.zero_grad()
        F.cross_entropy(theirs.layers(x), y).backward()
        optimizer.step()

    equal(run, theirs)
    x, y = data.points.tensors
    assert final["val/accuracy"] == pytest.approx((theirs.layers(x).argmax(1) == y).double().mean().item(), abs=1e-6)


def test_the_model_of_hugging_face_trains_as_a_plain_loop(example):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install transformers")
    run, module, theirs = example("my_hugging_face", "build")
    for dropout in (layer for model in (run.state.model, theirs) for layer in model.modules()):
        if isinstance(dropout, torch.nn.Dropout):
            dropout.p = 0.0
    *_, last = run.train()

    train = module.load().train
    optimizer = torch.optim.SGD(theirs.parameters(), lr=LR)
    for indices in row(len(train), 0, 0, STEPS * BATCH).split(BATCH):
        ids = torch.stack([train[i]["input_ids"] for i in indices.tolist()])
        labels = torch.tensor([train[i]["labels"] for i in indices.tolist()])
        optimizer.zero_grad()
        F.cross_entropy(theirs(input_ids=ids).logits, labels).backward()
        optimizer.step()

    equal(run, theirs)
    assert last.step == STEPS
    assert isinstance(run.state.model, transformers.BertForSequenceClassification)
