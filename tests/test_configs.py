"""Every shipped config file composes to a checked configuration, and experiments state their question."""

import re
from pathlib import Path

import pytest
import yaml

from batchlab.hydra_app import compose, own_targets

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
GROUPS = sorted(path for path in CONFIGS.glob("*/*.yaml"))


@pytest.mark.parametrize("path", GROUPS, ids=lambda path: path.relative_to(CONFIGS).as_posix())
def test_every_file_composes(path):
    group, name = path.parent.name, path.stem
    own = [f"{group}._target_=my_net.Net"] if name == "own" else []
    config = compose([f"{group}={name}", *own, "device=cpu"])
    if group in ("data", "model", "optimizer"):
        expected = yaml.safe_load(path.read_text())["_target_"]
        assert getattr(config, group)["_target_"] == ("my_net.Net" if own else expected)


@pytest.mark.parametrize("path", sorted((CONFIGS / "experiment").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_experiment_asks_a_question_and_its_grids_are_lists_of_overrides(path):
    package, question = path.read_text().splitlines()[:2]
    assert package == "# @package _global_"
    assert re.match(r"# .+\?", question)
    for grid in yaml.safe_load(path.read_text()).get("grids", []):
        assert all(re.match(r"[\w./]+=", override) for override in grid)


def test_a_users_target_takes_its_own_group_so_that_no_key_of_a_built_in_one_leaks():
    config = compose(["model._target_=my_net.Net", "model.width=3", "data._target_=my_net.load", "device=cpu"])
    assert config.model == {"_target_": "my_net.Net", "width": 3}
    assert config.data == {"_target_": "my_net.load"}
    assert config.study_name == "my_net.load-my_net.Net"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["batch_size=8", "model.width=3"], ["batch_size=8", "model.width=3"]),
        (["model._target_=a.B", "model.c=1"], ["model=own", "++model._target_=a.B", "++model.c=1"]),
        (["model=cnn", "model._target_=a.B"], ["model=cnn", "++model._target_=a.B"]),
        (["model=own", "model.c=1,2"], ["model=own", "++model.c=1,2"]),
        (["++model._target_=a.B", "+model.c=1"], ["model=own", "++model._target_=a.B", "++model.c=1"]),
    ],
)
def test_overrides_of_an_own_target_are_rewritten(given, expected):
    assert own_targets(given) == expected
