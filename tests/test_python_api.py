"""batchlab from Python: `train` and `run_study` work like the commands, and return records."""

import builtins
import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

import numpy as np
import pytest
from plain_defaults import CONFIGS, read

import batchlab
import batchlab.data.mnist
from batchlab.errors import BadRequest, EmptyGrid
from batchlab.hydra_app import compose
from batchlab.hydra_app.calling import overrides_of
from batchlab.recording.run_folder import read_record
from batchlab.sweep.processes.server import WarmServer
from batchlab.sweep.summary.progress import progress

SHORT = {"device": "cpu", "default_epochs": 1}
OWN = """
import torch
from batchlab import Task


def load(size=64):
    x = torch.linspace(-1, 1, 2 * size).reshape(size, 2)
    y = (torch.arange(size) % 2).long()
    return Task.classification((x, y), (x, y))


class Net(torch.nn.Sequential):
    def __init__(self, width=4):
        super().__init__(torch.nn.Linear(2, width), torch.nn.ReLU(), torch.nn.Linear(width, 2))

    class Inner(torch.nn.Linear):
        pass


def made_inside():
    class Hidden(Net):
        pass
    return Hidden
"""


@pytest.fixture
def here(server: WarmServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and a warm server."""
    monkeypatch.chdir(tmp_path)
    server.warm_up()
    return tmp_path


@pytest.fixture
def own_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The user's file, imported as in a notebook."""
    (tmp_path / "own_net.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("own_net")
    del sys.modules["own_net"]


def test_train_returns_the_record_that_lies_on_the_disk_and_trains_once(here: Path) -> None:
    record = batchlab.train({**SHORT, "batch_size": 256, "runs_dir": Path("out")})

    assert (record.status, record.batch_size, record.steps) == ("completed", 256, 1437 // 256)
    assert read_record(here / "out" / "digits-mlp" / record.run_id) == record
    assert batchlab.train(f"batch_size=256 device=cpu default_epochs=1 runs_dir='{here / 'out'}'").ended_at == (
        record.ended_at
    )


def test_a_study_of_ones_own_classes_over_lists_and_ranges(here: Path, own_net: ModuleType) -> None:
    requested = {**SHORT, "model": own_net.Net, "model.width": 3, "data": {"_target_": own_net.load, "size": 32}}
    requested["report"] = False  # it takes as long as everything else

    records = batchlab.run_study(requested, over={"batch_size": 2 ** np.arange(3, 5), "seed": range(2)})

    assert [(r.batch_size, r.seed, r.status) for r in records] == [
        (size, seed, "completed") for size in (8, 16) for seed in (0, 1)
    ]
    assert {r.parameters for r in records} == {2 * 3 + 3 + 3 * 2 + 2}
    study = here / "runs" / "own_net.load-own_net.Net"
    assert set(batchlab.load_runs(study).index) == {r.run_id for r in records}


def test_a_point_that_fails_is_a_record_and_no_exception(here: Path) -> None:
    record = batchlab.train({**SHORT, "batch_size": 256, "lr": 1e30})

    assert record.status == "diverged"
    assert record.reason


def test_an_interrupted_study_is_a_keyboard_interrupt(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchlab.hydra_app.calling.run_sweep_and_points", lambda points, sweep: (130, points))

    with pytest.raises(KeyboardInterrupt):
        batchlab.run_study(SHORT)


def test_values_come_through_as_they_are() -> None:
    values = {
        "text": 'it\'s 50% \\ of, "a" {b} [c] #d',
        "words": "two words",
        "null_text": "null",
        "number_text": "8",
        "empty": "",
        "back": "ends with \\",
        "path": Path("/tmp/a b"),
        "tiny": 1e-05,
        "whole": np.int64(3),
        "half": np.float32(0.5),
        "nothing": None,
        "yes": True,
        "listed": [1, 2.5, "a,b", None, ["x"]],
        "mapped": {"a": 1, "b": {"c": "d e"}},
    }

    config = compose([*overrides_of({"model": {"_target_": "my_net.Net", **values}}), "device=cpu"])

    expected = {**values, "path": "/tmp/a b", "whole": 3, "half": 0.5, "_target_": "my_net.Net"}
    assert config.model == expected
    assert type(config.model["whole"]) is int


def test_an_instrument_in_a_mapping_is_added_to_the_others() -> None:
    probe = {"_target_": "my_probe.Probe", "every": 10}
    config = compose([*overrides_of({"instruments": {"mine": probe}, "target": {"value": 0.2}}), "device=cpu"])

    assert config.instruments["mine"] == probe
    assert "validation" in config.instruments
    assert config.target is not None
    assert config.target.value == 0.2


def test_a_class_inside_a_class_is_named_whole(own_net: ModuleType) -> None:
    assert overrides_of({"model": own_net.Net.Inner}) == ["model._target_=own_net.Net.Inner"]


def test_each_shipped_load_function_is_named_as_its_config_names_it() -> None:
    modules = [importlib.import_module(f"batchlab.data.{m.name}") for m in iter_modules(batchlab.data.__path__)]
    shipped = [
        read(f"data/{path.name}")["_target_"] for path in (CONFIGS / "data").glob("*.yaml") if path.stem != "own"
    ]

    overrides = [overrides_of({"data": module.load}) for module in modules if hasattr(module, "load")]

    assert sorted(overrides) == sorted([f"data._target_={target}"] for target in shipped)
    assert compose([*overrides_of({"data": batchlab.data.mnist.load}), "device=cpu"]).data == {
        "_target_": "batchlab.data.mnist.load"
    }


def of_main() -> None:
    """Like a class defined in a notebook."""


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net: batchlab.train({"batchsize": 8}), "unknown key 'batchsize': did you mean 'batch_size'"),
        (
            lambda net: batchlab.train("batch_size=8,16"),
            "this is a grid of 2 points, and train runs one: use .*run_study",
        ),
        (lambda net: batchlab.train({"dry_run": True}), "dry_run works with run_study and the command line only"),
        (lambda net: batchlab.train("--version"), "--version is for the command line: leave it out"),
        (lambda net: batchlab.train(["--cfg", "job"]), "--cfg is for the command line: leave it out"),
        (lambda net: batchlab.train("--config-dir x"), "--config-dir is for the command line: .* config_dir='...'"),
        (lambda net: batchlab.train("hydra/launcher=joblib"), "hydra/launcher=joblib is for the command line"),
        (lambda net: batchlab.train("a='b"), "a='b cannot be read: No closing quotation, as in a shell"),
        (lambda net: batchlab.train(8), "8 is not a config: give a dict of options"),
        (lambda net: batchlab.train([8]), r"\[8\] is not a config"),
        (lambda net: batchlab.train({"batch size": 8}), "'batch size' is not the name of an option"),
        (lambda net: batchlab.train({8: 8}), "8 is not the name of an option"),
        (
            lambda net: batchlab.train({"lr": object()}),
            "lr=.* is invalid: a value of type object cannot be written into a config",
        ),
        (lambda net: batchlab.train({"lr": np.complex64(1j)}), "lr=1j is invalid: a value of type complex cannot"),
        (lambda net: batchlab.train({"lr": 10**5000}), "lr=... is invalid: a value of type int cannot be written"),
        (lambda net: batchlab.train({"model.x": "\ud800"}), r"model.x='\\ud800' is invalid: it has a surrogate"),
        (lambda net: batchlab.train({"model.x": {"true": 1}}), "model.x has the key 'true', which is invalid: use"),
        (lambda net: batchlab.train({"model.x": {"a b": 1}}), "model.x has the key 'a b', which is invalid: use"),
        (lambda net: batchlab.train({"model": net.made_inside()}), "model._target_=.* is defined inside a function"),
        (
            lambda net: batchlab.train({"model": of_main}),
            r"model._target_=of_main is defined in this script or notebook",
        ),
        (lambda net: batchlab.train({}, config_dir="nowhere"), "--config-dir nowhere: there is no such folder"),
        (lambda net: batchlab.run_study(over={"batch_size": 8}), "over={'batch_size': 8} is invalid: give the values"),
        (lambda net: batchlab.run_study(over={"model": "mlp"}), "over={'model': 'mlp'} is invalid: give the values"),
        (lambda net: batchlab.run_study(over=["batch_size"]), "over=.* is invalid: give a dict"),
    ],
)
def test_invalid_arguments_are_refused_in_one_line(
    call: Callable[[ModuleType], object],
    message: str,
    own_net: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(of_main, "__module__", "__main__")
    monkeypatch.setattr("batchlab.hydra_app.calling.run_sweep_and_points", lambda points: pytest.fail("was run"))

    with pytest.raises(BadRequest, match=message) as raised:
        call(own_net)

    assert "\n" not in str(raised.value)


def test_no_values_are_an_empty_grid() -> None:
    with pytest.raises(EmptyGrid, match=r"over={'seed': ...} gives no values"):
        batchlab.run_study(over={"seed": []})


def test_a_notebook_is_shown_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shell = type("ZMQInteractiveShell", (), {})()  # rich recognises a notebook by this name
    monkeypatch.setattr(builtins, "get_ipython", lambda: shell, raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)  # as in a notebook kernel

    with progress(total=1) as spectator:
        spectator.say("continues")

    assert capsys.readouterr().err == "continues\n"


UNGUARDED = """
import os, sys
import batchlab
from batchlab.sweep.processes import server
with open("ran.txt", "a") as ran:
    ran.write("once\\n")
records = batchlab.run_study({"device": "cpu", "default_epochs": 1}, over={"batch_size": [128, 256]})
first = server._server_pid()
batchlab.train("batch_size=256 device=cpu default_epochs=1 seed=1")
os.environ["CHANGED"] = "1"
kept = server._server_pid()
batchlab.train("batch_size=256 device=cpu default_epochs=1 seed=2")
print("SERVERS", first == kept, kept == server._server_pid())
print("STATUS", *(record.status for record in records))
print("IN THE PARENT", *sorted({"torch", "batchlab.worker.execute"} & set(sys.modules)))
"""


@pytest.mark.slow  # each starts its own server
@pytest.mark.parametrize("how", ["a script", "standard input, as a notebook has no file"])
def test_a_script_needs_no_guard_and_a_notebook_no_file(how: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(UNGUARDED)
    command = [sys.executable, *(["script.py"] if how == "a script" else ["-"])]

    done = subprocess.run(
        command, cwd=tmp_path, input=UNGUARDED, capture_output=True, text=True, timeout=300, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "STATUS completed completed" in done.stdout
    assert "SERVERS True False" in done.stdout
    assert (tmp_path / "runs" / "digits-mlp" / "report.html").is_file()
    assert done.stdout.splitlines()[-1] == "IN THE PARENT"
    assert (tmp_path / "ran.txt").read_text() == "once\n"
