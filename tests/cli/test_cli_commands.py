"""The front of the command line: commands, helps, what is passed to Hydra, and the message of a mistake."""

import errno
import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from invented.records import batchlab, environment, record

from batchlab.cli.main import ALL_COMMANDS, main
from batchlab.cli.option_help import described_options, groups
from batchlab.config.commands import COMMANDS
from batchlab.config.options import SWEEP
from batchlab.errors import BadRequest, BatchlabError, EmptyGrid
from batchlab.recording.run_folder import write_record

LIGHT = """
import sys
from batchlab.cli.main import main
code = main(sys.argv[1:])
heavy = "torch torchvision hydra omegaconf pandas matplotlib tensorboard sklearn rich".split()
print("HEAVY:", *(name for name in heavy if name in sys.modules))
sys.exit(code)
"""


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """The calls that reached Hydra; the launch itself returns 3."""
    calls: list[tuple[str, list[str]]] = []

    def launch(word: str, arguments: list[str]) -> int:
        calls.append((word, list(arguments)))
        return 3

    _replace_launch(monkeypatch, launch)
    return calls


def _replace_launch(monkeypatch: pytest.MonkeyPatch, launch: Callable[[str, list[str]], int]) -> None:
    hydra_app = types.ModuleType("batchlab.hydra_app")
    hydra_app.launch = launch  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "batchlab.hydra_app", hydra_app)


@pytest.mark.parametrize(
    "arguments",
    ["--help", "--version", "list", "list digits-mlp", "config", *(f"{word} --help" for word in ALL_COMMANDS)],
)
def test_what_needs_no_torch_leaves_it_out(arguments: str, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "digits-mlp" / "b8-0"
    folder.mkdir(parents=True)
    write_record(folder, record(8))

    ended = subprocess.run(
        [sys.executable, "-c", LIGHT, *arguments.split()],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )

    assert ended.stdout.splitlines()[-1] == "HEAVY:"
    assert len(ended.stdout.splitlines()) > 1
    assert ended.stderr == ""


def test_python_runs_the_package_as_the_command(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "batchlab", "swep"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "batchlab: unknown command 'swep': did you mean 'sweep'?\n"


@pytest.mark.parametrize("command", ALL_COMMANDS)
def test_every_command_has_a_help_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0

    said = capsys.readouterr().out
    assert "usage: batchlab " + command in said
    assert re.search(rf"^  batchlab {command}\b", said.partition("examples:")[2], re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_names_the_options_that_the_command_takes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "-h"]) == 0

    said = capsys.readouterr().out
    listed = re.findall(r"^  (--[\w-]+)", said, re.MULTILINE)
    of_runs = [row.flag for row in SWEEP.values() if row.flag] * (command in ("train", "sweep", "config"))
    assert listed == of_runs + ["--markdown"] * (command == "config")
    assert ("[HYDRA OPTIONS]" in said, "--hydra-help" in said) == (command != "lr-table",) * 2


@pytest.mark.parametrize("command", ["train", "sweep", "verify", "check"])
def test_examples_of_the_help_name_options_and_choices_that_exist(command: str) -> None:
    options, lines = groups(), COMMANDS[command].examples.splitlines()
    examples = [line.split("    ")[0].split()[2:] for line in lines]
    assert len(examples) >= 5
    for argument in (argument.strip("'") for example in examples for argument in example if "=" in argument):
        key, _, value = argument.partition("=")
        root = key.partition(".")[0]
        assert root in described_options() or root == "experiment", argument
        assert key not in options or set(value.split(",")) <= set(options[key]), argument


def test_no_command_shows_the_help_and_is_a_bad_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["swep"], "unknown command 'swep': did you mean 'sweep'?"),
        (["xyz"], f"unknown command 'xyz': the commands are {', '.join(ALL_COMMANDS)}"),
        (["batch_size=8,32", "model=cnn"], "write `batchlab sweep batch_size=8,32 model=cnn`"),
        (["--cfg", "job"], "unknown flag --cfg: the command comes first"),
        (["list", "--jsn"], "batchlab list does not take --jsn: did you mean '--json'?; `batchlab list --help` shows"),
        (["list", "--runs_dir=x"], "batchlab list does not take --runs_dir=x: write --runs-dir x; `batchlab"),
        (["list", "runs_dir=x"], "runs_dir=x is an option of train and sweep: write --runs-dir x here"),
        (["report", "x", "--format", "pdf"], "batchlab report does not take --format pdf; `batchlab report --help`"),
        (
            ["report"],
            "batchlab report needs STUDY, a study's name or path: write `batchlab report STUDY`; "
            "`batchlab report --help` shows what it takes",
        ),
        (
            ["compare", "x"],
            "batchlab compare needs OTHER_STUDY, another study's name or path: write "
            "`batchlab compare STUDY OTHER_STUDY`; ",
        ),
        (["report", "x", "--out"], "--out needs a value, such as --out elsewhere; "),
        (["dashboard", "--port"], "--port needs a value, such as --port 6006; "),
        (["export", "x", "--format"], "--format needs a value, such as --format csv; "),
        (["export", "x", "--format", "xml"], "--format xml is invalid: use one of csv, parquet, json; `batchlab"),
        (["completion", "tcsh"], "shell tcsh is invalid: use one of bash, zsh, fish; `batchlab completion"),
        (["dashboard", "--port", "x"], "--port x is invalid: it must be an integer; "),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("batchlab: ")
    assert said.err.count("\n") == 1
    assert message in said.err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (BadRequest("lr=\x1b[31mred\ncannot be"), 2, "batchlab: lr=[31mred cannot be\n"),
        (EmptyGrid("no points"), 4, "batchlab: no points\n"),
        (BatchlabError("other"), 1, "batchlab: other\n"),
        (KeyboardInterrupt(), 130, "batchlab: interrupted\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "batchlab: [Errno 28] No space left on device\n"),
    ],
)
def test_an_error_is_one_line_without_control_characters(
    error: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def launch(word: str, arguments: list[str]) -> int:
        raise error

    _replace_launch(monkeypatch, launch)

    assert main(["sweep"]) == code
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("bug", [FileNotFoundError(errno.ENOENT, "a bug"), ValueError("a bug")])
def test_a_bug_keeps_its_traceback(bug: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def launch(word: str, arguments: list[str]) -> int:
        raise bug

    _replace_launch(monkeypatch, launch)

    with pytest.raises(type(bug), match="a bug"):
        main(["train"])


@pytest.mark.parametrize("word", ["train", "sweep"])
@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--cfg", "job", "-p", "model", "batch_size=8,32", "--config-dir", "there"],
        ["--info", "searchpath"],
        ["+model.bias=false", "hydra/launcher=joblib", "batch_size=range(8, 64, 8)"],
        ["--hydra-help"],
    ],
)
def test_everything_after_the_command_is_passed_to_hydra(
    word: str, arguments: list[str], launched: list[tuple[str, list[str]]]
) -> None:
    assert main([word, *arguments]) == 3
    assert launched == [(word, arguments)]


def test_config_with_arguments_composes_what_train_would_use(launched: list[tuple[str, list[str]]]) -> None:
    assert main(["config", "batch_size=8", "model=cnn"]) == 3
    assert launched == [("train", ["--cfg", "job", "batch_size=8", "model=cnn"])]


def test_the_module_runs_as_a_program(tmp_path: Path) -> None:
    ended = batchlab("--version", folder=tmp_path)

    assert re.fullmatch(r"batchlab \d+\.\d+\.\d+\n", ended.stdout)
    assert batchlab("swep", folder=tmp_path).returncode == 2


def test_a_reader_that_has_enough_ends_it_quietly(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "batchlab.cli.main", "config"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()  # before it has started to write

    _, said = process.communicate()

    assert said == b""
    assert process.returncode == 128 + 13
