"""The command line on a machine with a simulated GPU of 80 MiB: a sweep where nothing fits as requested, and `find`."""

import json
import subprocess
import sys

import pytest
from faked_cuda import environment

from batchlab.recording.journal import read_journal

pytestmark = pytest.mark.long  # half a minute

MIB = 2**20
WIDE = """
import torch
from torch import nn

from batchlab import Task
from batchlab.instruments import Instrument


class Net(nn.Module):
    '''A tensor of 1 MiB for each example, saved for the backward pass, and others of the same size.'''

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        wide = x[:, :1].expand(-1, 2**18).contiguous()
        return self.layer(x) + (wide.exp() * self.layer.bias[0]).sum(dim=1, keepdim=True)


class Large(Instrument):
    '''Fits before the first step alone.'''

    def __init__(self, eval_every):
        self.every = eval_every

    def measure(self, state):
        torch.zeros(2**18 * (80 if state.step else 1), device=state.device.torch_device)
        yield state.measurement("large/fits", 1)


def load():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(128, 6, generator=generator), torch.randint(0, 3, (128,), generator=generator)
    return Task.classification((x[:64], y[:64]), (x[64:], y[64:]))
"""
SCRIPT = """
import sys

from batchlab.cli.main import main
from batchlab.sweep.processes.server import WarmServer

with WarmServer() as server:  # one for both: to warm it up takes longer than the rest
    server.warm_up()
    print([main(line.split()) for line in sys.argv[1:]])
"""
POINT = "device=cuda model._target_=wide.Net data._target_=wide.load optimizer.momentum=0"
INSTRUMENT = "+instruments.large._target_=wide.Large"
SWEEP = f"sweep {POINT} batch_size=4,40,48 examples=64 eval_every=32 {INSTRUMENT} report=false"


def test_only_training_makes_a_size_not_fit_and_what_else_does_not_is_reported_once(tmp_path):
    (tmp_path / "wide.py").write_text(WIDE)

    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, SWEEP, f"find {POINT} memory_limit=32MiB"],
        cwd=tmp_path,
        env=environment("simulated", total_bytes=112 * MIB),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "[0, 0]"
    records = {
        kept["batch_size"]: kept
        for kept in (json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/*/record.json"))
    }
    assert {size: (r["status"], r["phase"], r["attempts"]) for size, r in records.items()} == {
        4: ("completed", "", 1),
        40: ("oom", "forward", 1),
        48: ("oom", "", 0),
    }
    assert records[48]["reason"].startswith("not run: batch_size=40 ")
    halved = "note: batch_size=4: eval_batch_size=1000 does not fit in the memory that training leaves free: "
    assert ended.stdout.count("eval_batch_size=1000") == ended.stdout.count(halved) == 1
    assert records[4]["eval_batch_size_used"] in (8, 16)  # of 64
    (note,) = (text for text in records[4]["notes"] if "instrument" in text)
    assert note == "instrument large does not fit in the memory that training leaves free: left out after 32 examples"
    assert f"note: batch_size=4: {note}" in ended.stdout
    run = next(path.parent for path in (tmp_path / "runs").glob("*/bs4-*/record.json"))
    assert [m.examples for m in read_journal(run / "metrics.jsonl") if m.name == "large/fits"] == [0]

    (found,) = (json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/find/*.json"))
    assert found["status"] == "found"
    assert 4 <= found["largest"] <= 12  # two tensors and more of 1 MiB an example in 30 MiB
    assert found["larger"]["phase"] in ("forward", "backward")
    assert all(probe["phase"] != "validation" for probe in found["probes"])
