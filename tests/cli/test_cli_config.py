"""`batchlab config` and the helps show the options as they are, and where `configs/` lies."""

import itertools
from pathlib import Path

import pytest
import yaml

from batchlab import config_folder as module
from batchlab.cli.commands.config import describe
from batchlab.cli.option_help import blocks, described_options, groups, option_rows
from batchlab.cli.output import definitions
from batchlab.cli.studies import RUNS_DIR
from batchlab.config import option_names
from batchlab.config_folder import config_folder


def defaults() -> dict[str, object]:
    values: dict[str, object] = yaml.safe_load((config_folder() / "config.yaml").read_text())
    return values


def test_every_option_is_described() -> None:
    assert set(described_options()) == set(option_names())
    assert all(option.meaning for option in described_options().values())
    assert {name for name, _ in option_rows("sweep")} == {*option_names(), "experiment"}


def test_config_shows_every_option_with_its_default() -> None:
    said = describe()

    for name, value in defaults().items():
        if name in ("defaults", "hydra", "target"):
            continue
        text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        text = text.replace(" ", "") if isinstance(value, list) else text
        assert f" {name}={text}" in said
    assert " target={metric:val/loss,value:null}" in said


def test_config_marks_the_options_that_identify_a_run() -> None:
    lines = describe().splitlines()

    assert any(line.startswith("* batch_size=") for line in lines)
    assert any(line.startswith("  runs_dir=") for line in lines)


def test_config_keeps_the_blocks_of_the_file() -> None:
    assert ["batch_size", "accumulate", "micro_batch_size"] in blocks()
    assert list(itertools.chain(*blocks())) == [name for name in defaults() if name not in ("defaults", "hydra")]


def test_config_shows_every_option_with_its_files_first_comment() -> None:
    said = " ".join(describe().split())

    for group, options in groups().items():
        files = (config_folder() / group).rglob("*.yaml")
        names = {str(path.relative_to(config_folder() / group)).removesuffix(".yaml") for path in files}
        assert names == set(options)
    assert "cnn Two 3x3 convolutions with ReLU and pooling, then a linear layer." in said
    assert "smoke Does everything work, end to end" in said
    assert "@package" not in said
    assert "the model; default mlp:" in said


def test_config_shows_the_keys_inside_every_group() -> None:
    lines = [" ".join(line.split()) for line in describe().splitlines()]

    for group in ("data", "model", "optimizer"):
        for file in (config_folder() / group).glob("*.yaml"):
            keys = set(yaml.safe_load(file.read_text())) - {"_target_"}
            for key in keys:
                assert any(line.startswith(f"{group}.{key}=") for line in lines), key
    assert "model.depth=2 number of hidden layers" in lines
    assert any(line.startswith("optimizer.betas=[0.9,0.999] decay rates of the two running means") for line in lines)
    assert "instruments.memory" in lines


def test_a_key_that_is_not_an_option_is_not_described() -> None:
    assert "hidden" not in described_options()
    assert not any("environment gave" in line for line in describe().splitlines())


def test_list_and_dashboard_look_where_sweep_writes() -> None:
    assert defaults()["runs_dir"] == RUNS_DIR


@pytest.mark.parametrize("columns", [60, 80, 110])
def test_a_text_fits_its_columns(columns: int) -> None:
    lines = definitions(option_rows("sweep"), columns=columns).splitlines()

    assert max(map(len, lines)) <= columns
    assert max(map(len, lines)) > columns - 12  # and uses them


def test_the_configs_of_the_wheel_come_before_those_of_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "batchlab"
    (tmp_path / "site" / "configs").mkdir(parents=True)
    package.mkdir()
    monkeypatch.setattr(module, "files", lambda name: package)

    assert config_folder() == tmp_path / "site" / "configs"
    (package / "configs").mkdir()
    assert config_folder() == package / "configs"
