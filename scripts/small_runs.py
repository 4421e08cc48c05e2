"""The small runs that scripts/same_science compares, and the driver that runs them in one process per checkout."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

OWN = '''
import os
import signal
from pathlib import Path

import torch
from batchlab import Task
from torch.utils.data import Dataset


def load(size=96):
    x = torch.rand(size, 6, generator=torch.Generator().manual_seed(0)) * 4 - 2
    y = (x.square().sum(dim=1) < 8).long()
    return Task.classification((x[: size // 2], y[: size // 2]), (x[size // 2 :], y[size // 2 :]))


class Noisy(Dataset):
    """Examples that are drawn again at each read."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return torch.rand(6) + index / self.size, torch.tensor(index % 2)


def streamed(size=64):
    return Task.classification(Noisy(size), Noisy(size // 2))


class Net(torch.nn.Sequential):
    def __init__(self, width=8):
        super().__init__(
            torch.nn.Linear(6, width), torch.nn.BatchNorm1d(width), torch.nn.ReLU(), torch.nn.Dropout(0.2),
            torch.nn.Linear(width, 2),
        )


class Fat(torch.nn.Sequential):
    """Half a MiB of activations per example: a small memory limit is reached soon."""

    def __init__(self, width=32768):
        super().__init__(torch.nn.Linear(6, width), torch.nn.GELU(), torch.nn.Linear(width, 2))


class Spacious(Net):
    """Allocates 4 MiB for each example of a batch, and computes nothing with it."""

    def forward(self, x):
        space = x.new_empty(len(x), 2**20, dtype=torch.float32)
        return super().forward(x) + 0 * len(space)


class KilledOnce(Net):
    """Kills its process during training, the first time that it is trained in this folder."""

    passes = 0

    def forward(self, x):
        self.passes += self.training
        mark = Path("was-killed")
        if self.passes == 30 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)
'''

# Runs all commands of one checkout, with one warm server.
DRIVER = """
import contextlib, json, os, sys, time
from pathlib import Path

import batchlab
from batchlab.cli.main import main
try:
    from batchlab.sweep.processes.server import WarmServer
except ModuleNotFoundError:  # an older checkout, in which `sweep` had no sub-packages
    from batchlab.sweep.server import WarmServer

assert Path(batchlab.__file__).is_relative_to(sys.argv[1]), f"{batchlab.__file__} is not in {sys.argv[1]}"
with WarmServer() as server:  # or each command would import torch
    server.warm_up()
    for folder, number, arguments in json.loads(sys.argv[2]):
        os.makedirs(folder, exist_ok=True)
        os.chdir(folder)
        Path("own.py").write_text(sys.argv[3])
        began = time.perf_counter()
        with open(f"{number}.out", "w") as out, open(f"{number}.err", "w") as err:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main(arguments)
        Path(f"{number}.done").write_text(json.dumps([code, time.perf_counter() - began]))
"""

TINY = ("device=cpu", "threads=1")
OWN_MODEL = ("model._target_=own.Net", "data._target_=own.load")
TEXT = ("data=text", "data.context=16", "data.train_size=32", "data.val_size=16", "model=gpt", "model.width=16")


@dataclass(frozen=True)
class Configuration:
    """Commands that are run with both packages in a separate folder, and their expected exit codes."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    codes: tuple[int, ...] = (0,)
    resumed: bool = False  # its runs must have been resumed, or the comparison would show nothing


def sweep(name: str, *overrides: str) -> Configuration:
    return Configuration(name, (("sweep", *TINY, "report=false", f"study={name}", *overrides),))


def configurations(optimizers: list[str]) -> list[Configuration]:
    """All configurations; `optimizers` are the names of the configs that both checkouts ship."""
    fat = ("model._target_=own.Fat", "data._target_=own.load")
    own = ("optimizer=own", "optimizer._target_=torch.optim.RMSprop")
    killed = ("sweep", *TINY, "report=false", "study=resume", "model._target_=own.KilledOnce", "data._target_=own.load")
    killed += ("batch_size=8", "epochs=8", "checkpoint_every=48", "seed=0")
    return [
        *(
            sweep(f"optimizer-{name}", *(own if name == "own" else (f"optimizer={name}",)), "steps=12", "lr=0.003")
            for name in optimizers
        ),
        sweep("precisions", "precision=fp32,bf16,fp16", "optimizer=sgd,adamw", "batch_size=64", "steps=10"),
        sweep("accumulation", "batch_size=50", "micro_batch_size=16,25,50", "steps=8", "model.dropout=0.1"),
        sweep(
            "schedule",
            *("batch_size=16,48", "lr_scaling=linear,sqrt", "warmup=0.25", "schedule=cosine", "examples=480"),
            *("clip_norm=0.1", "weight_decay=0.01", "data.label_noise=0.1"),
        ),
        sweep("target", "batch_size=16", "epochs=4", "target.value=1.9", "stop_at_target=true", "deterministic=true"),
        sweep("instruments", "instruments=full", "model.width=16", "data.train_size=200", "batch_size=32", "steps=8"),
        *(
            sweep(
                f"streaming-{workers}",
                *("model._target_=own.Net", "data._target_=own.streamed", "batch_size=16", f"workers={workers}"),
            )
            for workers in (0, 2)
        ),
        sweep(
            "augmentation",
            *("data=fake", "data.train_size=64", "data.val_size=16", "data.image_shape=[3,16,16]", "data.classes=4"),
            *("data.crop=2", "data.flip=true", "data.cutout=6", "model=cnn", "model.width=4", "batch_size=8,32"),
            *("epochs=2", "model.norm=ghost", "model.ghost_batch=4"),
        ),
        sweep("tokens", *TEXT, "batch_size=4,16", "epochs=2", "optimizer=adamw", "lr=0.001"),
        sweep("own", *OWN_MODEL, "batch_size=8,16", "epochs=3", "seed=0,1"),
        Configuration("resume", (killed, killed), codes=(3, 0), resumed=True),
        Configuration("find", (("find", *TINY, "study=find", *fat, "memory_limit=32MiB"),)),
        Configuration("verify", (("verify", *TINY, *OWN_MODEL, "batch_size=24", "micro_batch_size=10"),), codes=(1,)),
        Configuration("check", (("check", *TINY, *OWN_MODEL, "batch_size=8"),)),
    ]


def optimizers_of(checkout: Path) -> set[str]:
    return {path.stem for path in (checkout / "configs/optimizer").glob("*.yaml")}


def start(checkout: Path, work: Path, wanted: list[Configuration]) -> subprocess.Popen[bytes]:
    """The commands of all configurations, sequentially, with the package of `checkout`."""
    commands = [(str(work / c.name), number, command) for c in wanted for number, command in enumerate(c.commands)]
    (work / "leases").mkdir(parents=True)
    environment = {**os.environ, "PYTHONPATH": str(checkout), "XDG_RUNTIME_DIR": str(work / "leases")}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "120"}
    arguments = ["-c", DRIVER, str(checkout), json.dumps(commands), OWN]
    with (work / "driver.log").open("wb") as log:
        return subprocess.Popen([sys.executable, *arguments], cwd=work, env=environment, stdout=log, stderr=log)
