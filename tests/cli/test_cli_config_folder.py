"""Configs are read from the folder of the configs and the user's own, and from nowhere else; secrets stay hidden."""

import os
import pickle
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from batchlab.cli.main import main
from batchlab.config import RunConfig, to_dict
from batchlab.config.border import hidden_keys
from batchlab.config_folder import config_folder
from batchlab.hydra_app import compose, grid_composer, plugins
from batchlab.hydra_app.allowed_hydra_options import stays_inside
from batchlab.recording.masking import concealed, masked, masked_overrides
from batchlab.sweep.identity import run_id

# Every file that is opened from the first line on; main may write no traceback over the answer.
WATCHED = """
import contextlib, io, shlex, sys
opened = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
from batchlab.cli.main import main
from batchlab.hydra_app import plugins
plugins.run_sweep = lambda points, sweep, **_: 0
if sys.argv[1] == "unconfined":
    plugins.confine_sources = lambda: None
for line in sys.stdin.read().splitlines():
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            code = main(["sweep", "device=cpu", "--config-dir", "mine", *shlex.split(line)])
        except Exception as error:
            code = type(error).__name__
    print(code)
print(*opened, sep="\\n")
"""
LINES = [
    "model=../../evil",
    "model=mlp,../../evil",
    "model=sub/../../../evil",
    "model=[../../evil]",
    "+model@data=../../evil",
    "model=${outside}/evil",
    "model=/${outside}/evil",
    "experiment=../../evil",
    "experiment=points_out",
    "experiment=[../../evil]",
    "hydra/launcher=../../../evil",
    "\"grids=[['model=../../evil']]\"",
]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Configs of somebody else's, above and next to the folder of configs of the user's own, `work/mine`."""
    for name, text in {
        "evil.yaml": "_target_: my_net.Net\nwidth: 666\n",
        "work/evil.yaml": "_target_: my_net.Net\nwidth: 667\n",
        "work/mine/model/sub/fine.yaml": "_target_: my_net.Net\n",
        "work/mine/experiment/points_out.yaml": "# @package _global_\ndefaults:\n  - override /model: ../../../evil\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def watched(outside: Path, lines: list[str], *, how: str = "confined") -> tuple[list[str], list[str]]:
    """The exit code of each line, and every file that was opened."""
    text = "\n".join(line.replace("${outside}", str(outside)) for line in lines)
    ended = subprocess.run(
        [sys.executable, "-c", WATCHED, how],
        cwd=outside / "work",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        input=text,
        capture_output=True,
        text=True,
        check=True,
    )
    said = ended.stdout.splitlines()
    return said[: len(lines)], said[len(lines) :]


def test_no_choice_of_a_group_opens_a_file_outside(outside: Path) -> None:
    codes, opened = watched(outside, LINES)

    assert codes == ["2"] * len(LINES)
    assert [name for name in opened if "evil" in name] == []
    assert any("mlp.yaml" in name for name in opened)  # the hook hears what is opened


def test_hydra_alone_would_open_it(outside: Path) -> None:
    """Or the test above would prove nothing."""
    _, opened = watched(outside, LINES[:1], how="unconfined")

    assert any(name.endswith("evil.yaml") for name in opened)


def test_a_config_of_the_users_own_may_lie_deeper(outside: Path) -> None:
    assert watched(outside, ["model=sub/fine"])[0] == ["0"]


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("", True),
        ("model", True),
        ("model/mlp", True),
        ("model/sub/my net", True),
        ("model/..hidden", True),
        ("..", False),
        ("model/..", False),
        ("model/../x", False),
        ("/etc", False),
        ("model//x", False),
        ("model/./x", False),
        ("model/..\\x", False),
        ("model/x\x00", False),
        ("model/\x1b[31m", False),
        ("model/x\n", False),
    ],
)
def test_a_name_stays_inside_or_does_not(path: str, inside: bool) -> None:
    assert stays_inside(path) is inside


HOSTILE = {
    "a logging file": "# @package _global_\nhydra:\n  job_logging:\n    version: 1\n",
    "another folder": "# @package _global_\nhydra: {run: {dir: ../elsewhere}}\n",
    "a default": "# @package _global_\ndefaults:\n  - override /hydra/job_logging: default\n",
    "a package": "# @package hydra.sweep\ndir: ../elsewhere\n",
    "a package of a default": "# @package _global_\ndefaults:\n  - /data@hydra.sweep: digits\n",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_file_sets_nothing_that_an_override_may_not(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "hostile.yaml").write_text(text)
    monkeypatch.setattr(plugins, "run_sweep", lambda *_, **__: pytest.fail("was run"))

    assert main(["sweep", "--config-dir", str(tmp_path), "experiment=hostile", "device=cpu"]) == 2

    said = capsys.readouterr().err
    assert said.startswith("batchlab: the file experiment/hostile.yaml sets hydra.")
    assert said.count("\n") == 1


def test_a_file_may_choose_and_set_a_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ndefaults:\n  - override /hydra/launcher: basic\nhydra: {launcher: {}}\nbatch_size: 8\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    monkeypatch.setattr(plugins, "run_sweep", lambda points, sweep, **_: points[0].config.batch_size)

    assert main(["sweep", "--config-dir", str(tmp_path), "experiment=mine", "device=cpu"]) == 8


# What the environment gives

SECRET = "hunter2-of-the-environment"
SECRETIVE = """
_target_: my_net.load
innocent: ${oc.env:LAB_SECRET}
again: ${data.innocent}
inside: s3://${.again}/x
decoded: ${oc.decode:${oc.env:LAB_NUMBER}}
listed: [plain, "${oc.env:LAB_SECRET}"]
copy: ${.deep}
deep: {one: "${oc.env:LAB_SECRET}", two: 2}
plain: ${seed}
text: nothing here
"""


@pytest.fixture
def secretive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """A point whose data group takes a secret from the environment, under innocent keys and by detours."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "secretive.yaml").write_text(SECRETIVE)
    monkeypatch.setenv("LAB_SECRET", SECRET)
    monkeypatch.setenv("LAB_NUMBER", "31415926")
    found: list[RunConfig] = []
    monkeypatch.setattr(plugins, "run_sweep", lambda points, *_, **__: found.extend(p.config for p in points) or 0)
    line = (
        "data=secretive seed=7 '+model.key_of_none=${oc.env:LAB_SECRET}' device=cpu 'runs_dir=${oc.env:LAB_SECRET}/r'"
    )
    assert main(["sweep", "--config-dir", str(tmp_path), *shlex.split(line)]) == 0
    (config,) = found
    return config


def test_what_the_environment_gave_is_used_and_never_shown(secretive: RunConfig) -> None:
    assert secretive.data["inside"] == f"s3://{SECRET}/x"
    assert secretive.data["decoded"] == 31415926

    shown = masked(to_dict(secretive))

    assert SECRET not in str(shown)
    assert "31415926" not in str(shown)
    assert shown["data"] == {
        "_target_": "my_net.load",
        **dict.fromkeys(("innocent", "again", "inside", "decoded"), "***"),
        "listed": ["***", "***"],
        "copy": {"one": "***", "two": 2},
        "deep": {"one": "***", "two": 2},
        "plain": 7,
        "text": "nothing here",
    }
    assert shown["runs_dir"] == "***"
    assert SECRET not in run_id(secretive)


def test_the_names_of_code_and_of_folders_are_no_secrets() -> None:
    written = {"model": {"_target_": "${oc.env:LAB}", "root": "${oc.env:LAB}"}, "study": "${oc.env:LAB}"}
    resolved = {"model": {"_target_": "my_net.Net", "root": "my_net.Net"}, "study": "my_net.Net"}

    assert hidden_keys(written, resolved, within=("model",)) == ("model.root",)


def test_what_is_hidden_stays_so_through_every_copy(secretive: RunConfig) -> None:
    once = masked(to_dict(secretive))

    assert masked(once) == once
    assert SECRET not in str(masked(to_dict(pickle.loads(pickle.dumps(secretive)))))


def test_the_identity_knows_the_value(secretive: RunConfig) -> None:
    other = replace(secretive, data={**secretive.data, "innocent": "another"})

    assert run_id(other) != run_id(secretive)


def test_an_error_that_tells_the_value_does_not(secretive: RunConfig) -> None:
    values = to_dict(secretive)

    assert concealed(f"cannot open s3://{SECRET}/x with 31415926", values) == "cannot open *** with ***"
    assert concealed("nothing here", values) == "nothing here"
    assert masked_overrides(["data.innocent=${oc.env:LAB_SECRET}"]) == ["data.innocent=${oc.env:LAB_SECRET}"]


def test_a_config_without_the_environment_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[RunConfig] = []
    monkeypatch.setattr(plugins, "run_sweep", lambda points, *_, **__: found.extend(p.config for p in points) or 0)

    assert main(["sweep", "device=cpu", "reference_batch_size=${batch_size}", "batch_size=8,16"]) == 0

    assert [config.hidden for config in found] == [(), ()]
    assert all("hidden" not in to_dict(config) for config in found)


# The user's own takes precedence over the shipped one


def composed(folder: Path, *words: str) -> RunConfig:
    """What the command line composes with `--config-dir`."""
    found: list[RunConfig] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "run_sweep", lambda points, *_, **__: found.extend(p.config for p in points) or 0)
        assert main(["sweep", "device=cpu", "--config-dir", str(folder), *words]) == 0
    (config,) = found
    return config


@pytest.fixture
def shadowing(tmp_path: Path) -> Path:
    """A folder with a file that is called as a shipped one is, and one that only it has."""
    for name, text in {
        "model/mlp.yaml": "_target_: my_net.Net\ndepth: 7\n",
        "model/mine.yaml": "_target_: my_net.Other\n",
        "experiment/quick.yaml": "# @package _global_\n# Which?\nlr: 0.7\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_file_of_the_users_holds_over_the_shipped_one_of_the_same_name(shadowing: Path) -> None:
    shadowed = composed(shadowing, "experiment=quick")
    assert (shadowed.model, shadowed.lr) == ({"_target_": "my_net.Net", "depth": 7}, 0.7)
    assert compose(["device=cpu", "model=mine"], str(shadowing)).model == {"_target_": "my_net.Other"}
    assert compose(["device=cpu", "model=cnn"], str(shadowing)).model["_target_"] == "batchlab.models.cnn.CNN"
    assert compose(["device=cpu"]).model["_target_"] == "batchlab.models.mlp.MLP"  # back without the folder


def test_it_is_first_in_the_search_path(shadowing: Path) -> None:
    with grid_composer(["device=cpu"], str(shadowing)) as composer:
        places = [(place.provider, place.path) for place in composer.loader.config_search_path.get_path()]

    files = [(provider, path) for provider, path in places if path.startswith("file://")]
    assert files == [("own", f"file://{shadowing}"), ("batchlab", f"file://{config_folder()}")]


def test_the_defaults_are_not_replaced_as_a_whole(
    shadowing: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (shadowing / "config.yaml").write_text("batch_size: 8\n")
    monkeypatch.setattr(plugins, "run_sweep", lambda *_, **__: pytest.fail("was run"))

    assert main(["sweep", "device=cpu", "--config-dir", str(shadowing)]) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(
        r"config.yaml is invalid: a file of your own must not replace .*put .* into .*lab/default.yaml$", line
    )


def test_a_folder_of_configs_is_a_lab_only_by_its_defaults(shadowing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shadowing / "configs").symlink_to(shadowing)
    monkeypatch.chdir(shadowing)
    assert compose(["device=cpu"]).model["_target_"] == "batchlab.models.mlp.MLP"

    (shadowing / "lab").mkdir()
    (shadowing / "lab" / "default.yaml").write_text("# @package _global_\nlr: 0.9\n")
    config = compose(["device=cpu"])
    assert (config.lr, config.model["depth"]) == (0.9, 7)
