"""Tab completion: the completions of a line, values of config groups included, and each shell's script."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from batchlab.cli.candidates import candidates
from batchlab.cli.commands import init
from batchlab.cli.commands.completion import SCRIPTS
from batchlab.cli.main import ALL_COMMANDS, main
from batchlab.cli.option_help import described_options, groups


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("batchlab", []),
        ("batchlab sw", ["sweep "]),
        ("batchlab sweep ba", ["batch_size="]),
        ("batchlab sweep batch_size=8 precision=b", ["precision=bf16"]),
        (
            "batchlab sweep precision=fp32,",
            ["precision=fp32,bf16", "precision=fp32,fp16", "precision=fp32,fp32", "precision=fp32,tf32"],
        ),
        ("batchlab sweep skip_larger=", ["skip_larger=false", "skip_larger=true"]),
        ("batchlab sweep retry=", []),  # a list is typed in brackets
        ("batchlab sweep model", ["model.", "model="]),
        ("batchlab sweep +model", ["+model."]),
        ("batchlab sweep +exp", ["+experiment.", "+experiment="]),
        ("batchlab sweep model=cnn +model.gh", ["+model.ghost_batch="]),
        ("batchlab sweep model.dep", ["model.depth="]),
        ("batchlab sweep model=cnn model.dep", []),
        ("batchlab sweep data=digi", ["data=digits"]),
        ("batchlab sweep experiment=smoke,qui", ["experiment=smoke,quick"]),
        ("batchlab sweep target.", ["target.metric=", "target.value="]),
        ("batchlab sweep --dr", ["--dry-run "]),
        ("batchlab sweep --retry fa", ["failed"]),
        ("batchlab sweep --config-dir ", []),
        ("batchlab report --no", ["--no-files "]),
        ("batchlab completion z", ["zsh"]),
        ("batchlab nonsense ", []),
        ("batchlab sweep lr=", []),
    ],
)
def test_the_completions_of_a_line(line: str, found: list[str]) -> None:
    assert candidates(line) == found


def test_every_command_every_option_and_every_choice_of_a_group_is_there() -> None:
    assert {word.strip() for word in candidates("batchlab ")} == {*ALL_COMMANDS, "--help", "--version"}
    offered = candidates("batchlab sweep ")
    assert {f"{name}=" for name in described_options() if name != "target"} <= set(offered)
    for group, options in groups().items():
        assert {o.partition("=")[2] for o in candidates(f"batchlab train {group}=")} >= set(options) - {"own"}


def test_studies_are_named(somewhere: Path) -> None:
    for name in ("digits-mlp", "other"):
        (somewhere / "runs" / name / "run").mkdir(parents=True)
        (somewhere / "runs" / name / "run" / "record.json").write_text("{}")

    assert candidates("batchlab report di") == ["digits-mlp "]
    assert candidates("batchlab compare digits-mlp o") == ["other "]


def test_the_users_own_configs_are_there_too(somewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (somewhere / "mine" / "model").mkdir(parents=True)
    (somewhere / "mine" / "model" / "cnn2.yaml").write_text("_target_: a.B\nsize: 3\n")

    assert candidates("batchlab sweep model=cnn") == ["model=cnn"]
    assert candidates("batchlab sweep --config-dir mine model=cnn") == ["model=cnn", "model=cnn2"]
    assert candidates("batchlab sweep --config-dir=mine model=cnn2 model.s") == ["model.size="]

    init.write(somewhere / "lab")
    monkeypatch.chdir(somewhere / "lab")
    assert candidates("batchlab sweep model=m") == ["model=mine", "model=mlp"]
    assert candidates("batchlab sweep data.tr") == ["data.train_size="]


IN_BASH = """
COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'  # of an interactive bash
eval "$(cat script)"
line=$1
COMP_LINE=$line COMP_POINT=${#line}
_batchlab ./batchlab
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("line", "replies"),
    [
        ("batchlab sweep data=di", ["digits"]),
        ("batchlab sweep batch_size=8 mod", ["model.", "model="]),
        ("batchlab li", ["list "]),
    ],
)
def test_bash_adds_what_is_missing_after_the_character_at_which_it_splits_words(
    line: str, replies: list[str], somewhere: Path
) -> None:
    (somewhere / "script").write_text(SCRIPTS["bash"])
    (somewhere / "batchlab").write_text(f'#!/bin/sh\nexec {sys.executable} -m batchlab.cli.main "$@"\n')
    (somewhere / "batchlab").chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    done = subprocess.run(
        ["bash", "--norc", "-c", IN_BASH, "bash", line],
        cwd=somewhere, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert (done.stdout.splitlines(), done.stderr) == (replies, "")


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_script_is_printed_and_its_shell_reads_it(
    shell: str, somewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    (somewhere / "script").write_text(capsys.readouterr().out)
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed here")

    done = subprocess.run([shell, "-n", "script"], cwd=somewhere, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_no_shell_is_a_bad_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion"]) == 2
    assert (
        capsys.readouterr().err
        == "batchlab: the name of a shell is missing: `batchlab completion` takes one of bash, zsh, fish\n"
    )
