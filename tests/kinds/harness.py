"""Tries a kind of public training code: its own plain loop is the oracle, and each command of batchlab must take it.

A kind is a module of this folder in the form of a user's file. It has what the user has: the model, `datasets()` (the
training and the validation set, for a `DataLoader`), `collate` if the loader needs one, and `training_step(model,
batch)`, which returns the mean loss of the user's script. Below the line `WRITTEN` is what the user writes for
batchlab, `load`, which returns the Task; with the imports from batchlab these are the lines that are counted.
"""

import contextlib
import importlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from plain_defaults import configured
from torch import nn
from torch.utils.data import DataLoader

from batchlab.cli.main import main
from batchlab.config import RunConfig
from batchlab.instruments.panel import build_instruments
from batchlab.recording.run_folder import read_record
from batchlab.records import RunRecord
from batchlab.sweep.processes.server import WarmServer
from batchlab.training import assembly
from batchlab.training.data.order import row, stream_seed
from batchlab.training.data.reading import seed_all
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.session import Session
from batchlab.worker.check.examination import examine as check

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "tasks.md"
WRITTEN = "# What you write:\n"
STEPS, SEED, BATCH, RAGGED = 20, 0, 10, 4  # micro-batches of 4, 4 and 2


@dataclass(frozen=True)
class Kind:
    """A module of this folder, and what the tests must know of it."""

    name: str
    what: str  # the first column of the table in docs/tasks.md
    model: str = "Net"
    keys: dict[str, Any] = field(default_factory=dict)  # of the model
    still: dict[str, Any] = field(default_factory=dict)  # keys with which it draws no random numbers
    lr: float = 0.05
    terms: Callable[[Any], float] | None = None  # of the mean in `training_step`; None: the examples
    divides: bool = True  # whether a batch may be divided without changing its gradient: no BatchNorm, no batch loss
    sums: bool = False  # whether `training_step` returns a sum
    needs: str = ""  # the package without which its tests are skipped
    draws: bool = False  # whether reading an example draws random numbers
    more: dict[str, Any] = field(default_factory=dict)  # other options
    tiny: Sequence[str] = ()  # more arguments of the commands

    def __str__(self) -> str:
        return self.name

    @property
    def module(self) -> ModuleType:
        return importlib.import_module(self.name)

    @property
    def written(self) -> list[str]:
        """The lines that the user writes for batchlab."""
        had, _, added = (HERE / f"{self.name}.py").read_text(encoding="utf-8").partition(WRITTEN)
        lines = [line for line in had.splitlines() if line.startswith(("from batchlab", "import batchlab"))]
        return lines + [line for line in added.splitlines() if line.strip()]

    def optimizer(self, model: nn.Module, lr: float) -> torch.optim.Optimizer:
        """The one of the user's own loop: SGD, unless the file has another."""
        if hasattr(self.module, "plain_optimizer"):
            return self.module.plain_optimizer(model, lr)
        return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=0.01)

    def config(self, **changes: Any) -> RunConfig:
        settings = {
            "data": {"_target_": f"{self.name}.load"},
            "model": {"_target_": f"{self.name}.{self.model}", **self.keys},
            "optimizer": {"_target_": "torch.optim.SGD", "momentum": 0.9},
            "default_epochs": None, "steps": STEPS, "batch_size": BATCH, "lr": self.lr, "lr_scaling": "none",
            "warmup": 0.0, "schedule": "constant", "weight_decay": 0.01, "clip_norm": None, "device": "cpu",
            "seed": SEED, "trust": ["torch"],
        }  # fmt: skip
        return configured(**(settings | self.more | changes))


def same_tensors(state: Any, other: Any) -> None:
    for name, tensor in state.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-10, atol=1e-12, msg=lambda text, name=name: name + text)


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """A user's file in float64, without a word of it in the file."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def session_of(config: RunConfig, notes: list[str] | None = None) -> Session:
    data = assembly.build_data(config, CpuDevice())
    return assembly.assemble(config, data, build_instruments, note=(notes if notes is not None else []).append)


class Seeded(torch.utils.data.Dataset[Any]):
    """Reads each example with the random numbers that belong to its place in the data order."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, place_and_index: tuple[int, int]) -> Any:
        place, index = place_and_index
        seed_all(stream_seed(SEED, "read", place))
        return self.dataset[index]


def plainly_trained(kind: Kind, config: RunConfig, sizes: Sequence[int]) -> nn.Module:
    """The model after the user's own loop, with gradient accumulation over micro-batches of `sizes` as it is written
    by hand: each mean weighted by its share of the terms."""
    train, _ = kind.module.datasets()
    model = assembly.build_model(config, kind.module.load(), CpuDevice())
    optimizer = kind.optimizer(model, config.lr)
    places = iter(enumerate(row(len(train), SEED, 0, STEPS * sum(sizes)).tolist()))
    wanted = [[next(places) for _ in range(size)] for _ in range(STEPS) for size in sizes]
    if not kind.draws:
        wanted = [[index for _, index in batch] for batch in wanted]  # type: ignore[misc]
    loader = DataLoader(
        Seeded(train) if kind.draws else train,
        batch_sampler=wanted,
        collate_fn=getattr(kind.module, "collate", None),
        generator=torch.Generator(),  # or an iterator draws a seed from the stream of the training
    )
    micro_batches = iter(loader)
    for _ in range(STEPS):
        optimizer.zero_grad()
        batches = [next(micro_batches) for _ in sizes]
        terms = [float(kind.terms(batch)) if kind.terms else size for batch, size in zip(batches, sizes, strict=True)]
        for batch, share in zip(batches, terms, strict=True):
            if share:
                weight = 1.0 if kind.sums else share / sum(terms)
                (kind.module.training_step(model, batch) * weight).backward()
        optimizer.step()
    return model


def trains_as_its_own_loop(kind: Kind) -> None:
    """Whole batches and ragged micro-batches, with all instruments measuring in between."""
    ragged = [RAGGED, RAGGED, BATCH - 2 * RAGGED]
    with float64():
        for keys, size, loops in (
            (kind.keys, None, [[BATCH]]),
            (kind.keys | kind.still, RAGGED, [ragged, [BATCH]] if kind.divides else [ragged]),
        ):
            if size and kind.more.get("accumulate") == 1:
                continue  # the loss is of the batch as a whole
            config = kind.config(model=kind.config().model | keys, micro_batch_size=size)
            session = session_of(config)
            assert {m.value == m.value for m in session.train() if m.name == "val/loss"} == {True}
            for sizes in loops:
                same_tensors(session.state.model.state_dict(), plainly_trained(kind, config, sizes).state_dict())


def check_finds_nothing_wrong(kind: Kind) -> None:
    found = check(kind.config()).findings
    assert [f"{f.what}: {f.advice}" for f in found if f.level.name == "WRONG"] == []


def _flat(options: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in options.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{key}", inner) for key, inner in _flat(value))
        else:
            yield name, value


@dataclass
class Commands:
    """The command line in a user's folder that holds nothing but the kind's file."""

    folder: Path
    server: WarmServer
    capfd: pytest.CaptureFixture[str]

    def run(self, command: str, kind: Kind, *arguments: str, ends_with: int = 0) -> str:
        """What the command printed; its exit code must be as expected."""
        shutil.copy(HERE / f"{kind.name}.py", self.folder)
        self.server.warm_up()
        targets = [f"data._target_={kind.name}.load", f"model._target_={kind.name}.{kind.model}"]
        keys = [f"model.{name}={value}" for name, value in kind.keys.items()]
        more = [f"{name}={value}" for name, value in _flat(kind.more) if name != "accumulate" or command == "sweep"]
        self.capfd.readouterr()
        code = main([command, "device=cpu", "threads=1", *targets, *keys, *more, *kind.tiny, *arguments])
        printed = "".join(self.capfd.readouterr())
        assert code == ends_with, printed
        assert "Traceback" not in printed
        return printed

    def report(self, study: str) -> str:
        self.capfd.readouterr()
        assert main(["report", study, "--no-files"]) == 0
        return "".join(self.capfd.readouterr())


def sweeps_and_reports(kind: Kind, commands: Commands) -> list[RunRecord]:
    """Two batch sizes; both end, learn something and are in the report."""
    commands.run("sweep", kind, "batch_size=4,8", "steps=6", "study=tried", "report=false", f"lr={kind.lr}")
    records = [read_record(file.parent) for file in sorted((commands.folder / "runs/tried").glob("*/record.json"))]
    assert sorted((r.batch_size, r.status, r.steps) for r in records) == [(4, "completed", 6), (8, "completed", 6)]
    assert all(r.final["val/loss"] > 0 for r in records)
    assert "2 runs" in commands.report("tried")
    return records


def verifies(kind: Kind, commands: Commands) -> None:
    """Its sentence on dividing a batch is what the trained weights showed."""
    sizes = "batch_size=10", f"micro_batch_size={RAGGED}"
    printed = commands.run("verify", kind, *sizes, ends_with=0 if kind.divides else 1)
    assert ("The same gradient" in printed, "Not the same gradient" in printed) == (kind.divides, not kind.divides)


def finds(kind: Kind, commands: Commands) -> None:
    assert "Largest micro-batch: 8" in commands.run("find", kind, "at_most=8")


def is_in_the_table(kind: Kind) -> None:
    """The row of docs/tasks.md has the number of lines, and names only what the user's file has."""
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| {kind.what} |")]
    (row_of_it,) = rows
    _, _, shown, lines, _ = (cell.strip() for cell in row_of_it.split("|"))
    assert int(lines) == len(kind.written)
    text = "\n".join(kind.written)
    for word in shown.replace(",", " ").split():
        if word.startswith("`"):
            assert word.strip("`") in text
