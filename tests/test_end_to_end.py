"""End to end: `batchlab sweep batch_size=8,32,256` through the console script, and its output."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tensorboard_http import Dashboard, eventually, number_of

from batchlab.cli.main import main
from batchlab.report.claims import CLAIMS
from batchlab.science.scaling.lr_scaling import RULE_NAMES
from batchlab.sweep.processes.server import WarmServer

RunCommand = Callable[..., subprocess.CompletedProcess[str]]
SIZES = (8, 32, 256)
BUDGET = ("default_epochs=3", "device=cpu")
# Not under `if __name__ == "__main__"`: neither the warm server nor a worker may run it again.
UNGUARDED = """
import sys
from batchlab.cli.main import main
with open("ran.txt", "a") as ran:
    ran.write("once\\n")
code = main(sys.argv[1:])
heavy = sorted({"torch", "sklearn", "batchlab.worker.execute"} & set(sys.modules))
print("IN THE PARENT:", heavy)
sys.exit(code)
"""


def batchlab(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs the installed console script."""
    command = [str(Path(sys.executable).with_name("batchlab")), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def run_command(server: WarmServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> RunCommand:
    """Runs a command in this process, which has a warm server: importing PyTorch would take longer than the command."""

    def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(cwd)
        server.warm_up()
        capfd.readouterr()
        return subprocess.CompletedProcess(arguments, main(arguments), *capfd.readouterr())

    return run


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder after the sweep (with a small budget) from an unguarded script."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "script.py").write_text(UNGUARDED)
    command = [sys.executable, "script.py", "sweep", "batch_size=8,32,256", *BUDGET]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    return folder, done


def runs_of(folder: Path, study: str = "digits-mlp") -> dict[int, Path]:
    """Run folders by batch size."""
    records = sorted((folder / "runs" / study).glob("*/record.json"))
    return {json.loads(path.read_text())["batch_size"]: path.parent for path in records}


def test_it_ends_well_and_its_parent_never_imports_torch_nor_runs_the_script_again(swept):
    folder, done = swept
    assert done.returncode == 0, done.stderr
    assert "IN THE PARENT: []" in done.stdout
    assert (folder / "ran.txt").read_text() == "once\n"


def test_the_table_has_a_row_for_each_batch_size_and_says_where_to_look_next(swept):
    _, done = swept
    rows = [line.split() for line in done.stdout.splitlines() if line.strip()[:3].strip().isdigit()]
    assert [int(row[0]) for row in rows] == list(SIZES)
    assert all(row[-1] == "completed" for row in rows)
    assert "batchlab dashboard runs/digits-mlp" in done.stdout


def test_it_ends_in_the_report_of_its_study(swept):
    folder, done = swept
    assert "Claims: " in done.stdout
    assert "runs/digits-mlp/{report.html, report.md, report.json, figures/" in done.stdout
    assert len(json.loads((folder / "runs" / "digits-mlp" / "report.json").read_text())["claims"]) == len(CLAIMS)


def test_every_point_left_a_whole_run_folder(swept):
    folder, _ = swept
    runs = runs_of(folder)
    assert set(runs) == set(SIZES)
    for size, run in runs.items():
        record = json.loads((run / "record.json").read_text())
        assert record["status"] == "completed"
        assert record["steps"] == 3 * 1437 // size
        assert record["examples"] == record["steps"] * size
        assert record["remainder"] == 3 * 1437 - record["examples"]
        assert (run / "config.yaml").is_file()
        assert len(list(run.glob("events.out.tfevents.*"))) == 1
        assert (run / "worker.log").read_text() == ""
        names = {json.loads(line)["name"] for line in (run / "metrics.jsonl").read_text().splitlines()}
        assert names >= {
            *("train/loss", "train/learning_rate", "train/gradient_norm", "val/loss", "val/accuracy"),
            *("speed/examples_per_second", "speed/seconds_per_step"),
            *("memory/peak_resident_bytes", "memory/saved_for_backward_bytes"),
        }


def test_results_csv_says_what_the_records_say(swept):
    folder, _ = swept
    with (folder / "runs" / "digits-mlp" / "results.csv").open() as file:
        rows = {int(row["batch_size"]): row for row in csv.DictReader(file)}
    for size, run in runs_of(folder).items():
        record = json.loads((run / "record.json").read_text())
        assert rows[size]["run_id"] == record["run_id"]
        assert float(rows[size]["final.val/loss"]) == pytest.approx(record["final"]["val/loss"])


def test_tensorboard_draws_curves_hparams_and_the_studys_own_charts(swept):
    folder, _ = swept
    study = folder / "runs" / "digits-mlp"
    page = Dashboard.of(study)
    runs = runs_of(folder)
    for size, run in runs.items():
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        losses = [line for line in lines if line["name"] == "val/loss"]
        drawn = page.scalars(run.name, "val/loss")
        assert [step for _, step, _ in drawn] == [line["examples"] for line in losses]
        assert [value for *_, value in drawn] == pytest.approx([line["value"] for line in losses], rel=1e-6)
        began = drawn[0][0] - losses[0]["train_seconds"]
        assert [wall - began for wall, *_ in drawn] == pytest.approx([x["train_seconds"] for x in losses], abs=1e-3)
        assert [step for _, step, _ in page.scalars(run.name, "val/loss_by_step")] == [x["step"] for x in losses]
        assert len(drawn) == pytest.approx(3 * 4 + 1, abs=1), size
    rows = page.session_groups()
    assert sorted(int(row["hparams"]["batch_size"]) for row in rows) == list(SIZES)
    for row in rows:
        record = json.loads((runs[int(row["hparams"]["batch_size"])] / "record.json").read_text())
        assert number_of(row, "val/loss") == pytest.approx(record["final"]["val/loss"], rel=1e-6)
    assert page.charts()
    (curve,) = [run for run in page.runs() if "by_batch_size" in run]
    tag = next(tag for tag in page.tags()[curve] if tag.endswith("val_loss"))
    assert [step for _, step, _ in page.scalars(curve, tag)] == list(SIZES)


def test_asked_again_it_runs_nothing_and_an_extended_grid_runs_what_is_new(swept, run_command):
    folder, _ = swept
    before = {size: (run / "record.json").read_bytes() for size, run in runs_of(folder).items()}
    report = folder / "runs" / "digits-mlp" / "report.html"
    written = report.stat().st_mtime_ns
    again = run_command("sweep", "batch_size=8,32,256", *BUDGET, cwd=folder)
    assert again.returncode == 0
    assert "3 of the 3 points are finished and are not run again" in again.stderr
    assert report.stat().st_mtime_ns == written  # nothing was run, so it says the same
    more = run_command("sweep", "batch_size=8,32,128,128,256", *BUDGET, "report=false", cwd=folder)
    assert more.returncode == 0, more.stderr
    assert report.stat().st_mtime_ns == written
    assert "1 duplicate removed" in more.stderr
    assert set(runs_of(folder)) == {*SIZES, 128}
    for size, content in before.items():
        assert (runs_of(folder)[size] / "record.json").read_bytes() == content


MY_NET = """
import torch
from batchlab import Task

class Net(torch.nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.Tanh(), torch.nn.Linear(width, 2))

    def forward(self, x):
        return self.layers(x)

def load():
    x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] * x[:, 1] > 0).long()
    return Task.classification((x[:400], y[:400]), (x[400:], y[400:]))
"""


def test_a_users_own_model_and_data_in_an_empty_folder(tmp_path):
    (tmp_path / "my_net.py").write_text(MY_NET)
    done = batchlab(
        *("sweep", "model._target_=my_net.Net", "data._target_=my_net.load", "batch_size=8,64", "model.width=32"),
        *("device=cpu", "lr=0.1"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    runs = runs_of(tmp_path, "my_net.load-my_net.Net")
    assert set(runs) == {8, 64}
    record = json.loads((runs[8] / "record.json").read_text())
    assert record["config"]["model"] == {"_target_": "my_net.Net", "width": 32}
    assert record["parameters"] == 2 * 32 + 32 + 32 * 2 + 2
    assert record["final"]["val/accuracy"] > 0.9


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["batch_size=-4"], 2, "batch_size=-4 is invalid: it must be an integer of at least 1"),
        (["batchsize=8"], 2, "unknown key 'batchsize': did you mean 'batch_size'?"),
        (["lr_scaling=cubic"], 2, f"lr_scaling=cubic is invalid: it must be one of {', '.join(RULE_NAMES)}"),
        (["precision=fp8"], 2, "precision=fp8 is invalid: it must be one of fp32, tf32, bf16, fp16"),
        (["epochs=1", "steps=5"], 2, "epochs=1 and steps=5 set the length of training more than once"),
        (["model=cmn"], 2, "unknown model 'cmn': did you mean 'cnn'?"),
        (["model.widht=3"], 2, "unknown key 'model.widht': did you mean 'model.width'?"),
        (["+typo=1"], 2, "unknown key 'typo'"),
        (["batch_size=8,"], 2, "cannot read 'batch_size=8,'"),
        (["experiment=nope"], 2, "unknown experiment 'nope'"),
        (["batch_size=range(0)"], 4, "the grid is empty: batch_size=range(0) gives no values"),
        (["batch_size=8,-1,32"], 2, "batch_size=-1 is invalid"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bad_request_is_one_line_and_starts_nothing(arguments, code, line, run_command, tmp_path):
    refused = run_command("sweep", *arguments, cwd=tmp_path)
    assert refused.returncode == code
    assert line in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert refused.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_the_script_ends_with_the_code_of_its_command(tmp_path):
    refused = batchlab("sweep", "batch_size=-4", cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "batchlab: batch_size=-4 is invalid: it must be an integer of at least 1, in examples\n"
    assert list(tmp_path.iterdir()) == []


def test_train_is_one_point(run_command, tmp_path):
    refused = run_command("train", "batch_size=8,32", cwd=tmp_path)
    assert refused.returncode == 2
    assert "grid of 2 points" in refused.stderr
    assert "batchlab sweep" in refused.stderr


def test_hydras_own_flags_pass(tmp_path):
    shown = batchlab("sweep", "batch_size=48", "model=cnn", "--cfg", "job", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "batch_size: 48" in shown.stdout
    assert "batchlab.models.cnn.CNN" in shown.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_interrupted_it_stops_after_a_step_and_says_how_to_resume(number, code, tmp_path):
    command = [
        str(Path(sys.executable).with_name("batchlab")),
        "sweep",
        "batch_size=8,32",
        "epochs=100000",
        "device=cpu",
    ]
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        message: list[str] = []
        for line in process.stderr:
            message.append(line)
            if "started" in line:
                os.kill(process.pid, number)
        process.wait(timeout=120)
    assert process.returncode == code, message
    last = message[-1]
    assert "continue with: batchlab sweep batch_size=8,32 epochs=100000 device=cpu" in last
    # multiprocessing's resource tracker ends shortly after its owner; a worker would train for hours
    eventually(lambda: _alive_in(process.pid), lambda alive: not alive, seconds=20)
    records = [json.loads(p.read_text()) for p in (tmp_path / "runs" / "digits-mlp").glob("*/record.json")]
    assert [record["status"] for record in records] == ["interrupted"]


def _alive_in(session: int) -> Sequence[int]:
    """Live processes of the session (`session` is the pid of its leader)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            found.append(int(stat.parent.name))
    return found


def test_a_study_is_a_union_of_grids_and_the_command_line_applies_to_each(run_command, tmp_path):
    experiment = tmp_path / "mine" / "experiment" / "pair.yaml"
    experiment.parent.mkdir(parents=True)
    grids = '  - ["batch_size=8,32"]\n  - ["batch_size=32,64", "lr=0.02"]\n'
    experiment.write_text(f"# @package _global_\n# Does a union hold each point once?\nstudy: pair\ngrids:\n{grids}")
    words = ("experiment=pair", "default_epochs=1", "device=cpu", "report=false")
    done = run_command("sweep", "--config-dir", "mine", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 duplicate removed" in done.stderr
    assert sorted(runs_of(tmp_path, "pair")) == [8, 32, 64]
    experiment.write_text("# @package _global_\n# Is a bare comma seen?\ngrids:\n  - [batch_size=8,32]\n")
    refused = run_command("sweep", "--config-dir", "mine", "experiment=pair", cwd=tmp_path)
    assert refused.returncode == 2
    assert "grids holds 32" in refused.stderr
