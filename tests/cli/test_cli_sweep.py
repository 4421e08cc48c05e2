"""Our own options of `sweep` and `train`, what an interrupted sweep tells to type, and what `--cfg` shows of a grid."""

import logging
import re
import shlex
from collections.abc import Iterator, Sequence

import pytest

from batchlab.cli.main import main
from batchlab.config import RunConfig, SweepConfig
from batchlab.errors import BadRequest
from batchlab.hydra_app import plugins
from batchlab.hydra_app.arguments import read_arguments, to_continue
from batchlab.sweep.points import Point

Grids = list[tuple[list[RunConfig], SweepConfig]]


@pytest.fixture
def grids(monkeypatch: pytest.MonkeyPatch) -> Grids:
    """The grids that would have been run; each ends as if Ctrl-C had come."""
    grids: Grids = []

    def run_sweep(points: Sequence[Point], sweep: SweepConfig, **_: object) -> int:
        grids.append(([point.config for point in points], sweep))
        return 130

    monkeypatch.setattr(plugins, "run_sweep", run_sweep)
    return grids


@pytest.fixture
def logging_as_it_was() -> Iterator[None]:
    """Hydra's --info turns its debug log on, for the whole process."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.mark.parametrize(
    ("line", "retry", "force", "dry_run"),
    [
        ("sweep", (), False, False),
        ("sweep --retry failed,timeout batch_size=8", ("failed", "timeout"), False, False),
        ("sweep batch_size=8 --retry=timeout", ("timeout",), False, False),
        ("sweep batch_size=8,16 --force lr=0.1", (), True, False),
        ("train --dry-run --retry oom --force", ("oom",), True, True),
        ("sweep 'retry=[failed]' --retry diverged", ("diverged",), False, False),
    ],
)
def test_our_flags_set_options_wherever_they_are(
    line: str, retry: tuple[str, ...], force: bool, dry_run: bool, grids: Grids
) -> None:
    main([*shlex.split(line), "device=cpu"])

    ((_, sweep),) = grids
    assert (sweep.retry, sweep.force, sweep.dry_run) == (retry, force, dry_run)


@pytest.mark.parametrize(
    ("typed", "again"),
    [
        ("batch_size=8,32 --force lr=0.1", "batch_size=8,32 lr=0.1 accept_changed=true"),
        ("batch_size=8 force=true", "batch_size=8 accept_changed=true"),
        ("--retry failed 'batch_size=range(8,10)'", "--retry failed 'batch_size=range(8,10)'"),
        ("data.force=2 batch_size=8", "data.force=2 batch_size=8"),
    ],
)
def test_an_interrupted_sweep_is_continued_and_not_forced_again(typed: str, again: str) -> None:
    assert to_continue(shlex.split(typed)) == shlex.split(again)


def test_the_line_to_continue_with_is_the_last_one(grids: Grids, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "batch_size=8,32", "device=cpu", "--force", "study=a"]) == 130

    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "continue with: batchlab sweep batch_size=8,32 device=cpu study=a accept_changed=true"
    assert said[-2] == "points that were not started keep their results: --force runs all again"
    assert len(grids) == 1


def test_the_options_of_hydra_and_the_overrides_are_distinguished() -> None:
    asked = read_arguments(shlex.split("a=1 --cfg job b=2 -p model c=3 --dry-run --config-dir there d=4"))

    assert (asked.hydra.cfg, asked.hydra.package) == ("job", "model")
    assert asked.config_dir == "there"
    assert asked.overrides == ("a=1", "b=2", "c=3", "d=4", "dry_run=true")
    assert asked.only_shows
    assert not read_arguments(["a=1", "--config-dir", "there"]).only_shows


@pytest.mark.parametrize("value", ["", "faild", "failed,", "completed", "failed timeout"])
def test_what_cannot_be_run_again_is_refused(value: str) -> None:
    with pytest.raises(BadRequest, match=r"--retry .*failed"):
        read_arguments([f"--retry={value}"])


def test_the_config_of_a_grid_is_that_of_its_first_point(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--cfg", "job", "batch_size=8,32", "seed=range(5,9)"]) == 0

    said = capsys.readouterr()
    assert re.search(r"^batch_size: 8$", said.out, re.MULTILINE)
    assert re.search(r"^seed: 5$", said.out, re.MULTILINE)
    assert said.err == "config of the first point of the grid:\n"


@pytest.mark.parametrize("shown", [["config", "batch_size=8"], ["train", "batch_size=8", "--cfg", "job"]])
def test_the_config_of_one_point_is_all_that_is_shown(
    shown: list[str], grids: Grids, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(shown) == 0

    said = capsys.readouterr()
    assert said.out.startswith("data:\n")
    assert said.err == ""
    assert grids == []


@pytest.mark.parametrize("options", [["--info", "searchpath"], ["batch_size=8", "--info"], ["--info", "--force"]])
@pytest.mark.usefixtures("logging_as_it_was")
def test_an_option_without_a_value_takes_no_override_for_one(
    options: list[str], grids: Grids, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", *options]) == 0
    assert "configs" in capsys.readouterr().out
    assert grids == []


@pytest.mark.parametrize("word", ["sweep", "train"])
def test_the_help_says_what_the_options_do(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([word, "--help"])

    said = " ".join(capsys.readouterr().out.split())
    for option in ("--retry STATUSES", "--force", "--dry-run"):
        assert option in said
    assert re.search(rf"batchlab {word} \S+ --retry \S+", said)
    assert "is run again only" in said
