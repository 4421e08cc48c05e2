"""The studies from the literature compose, and a reduced form of each runs on data in its real file format."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from image_files import some_images, write_cifar_binary, write_mnist
from sweep_runs import Lab

from batchlab.config import to_dict
from batchlab.hydra_app import grid_composer
from batchlab.recording.flat_options import flat
from batchlab.recording.run_folder import read_records
from batchlab.report.compare.published import FOUND
from batchlab.report.making import make
from batchlab.sweep.points import Point

FOLDER = Path(__file__).resolve().parents[1] / "configs" / "experiment" / "literature"
FILES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
SIZE = {"epochs": ("epochs=1",), "examples": ("examples=256",)}

# For each study: what is run here, the number of points, and the published figures that are compared with ours.
REDUCED: dict[str, tuple[tuple[str, ...], int, int]] = {
    "keskar_f1": (
        ("batch_size=64,256", "model.width=8", "instruments.sharpness.examples=64", "instruments.sharpness.products=3"),
        2,
        2,
    ),
    "shallue_mnist": (("batch_size=32,128", "lr=0.01", "model.width=2"), 2, 0),
    "shallue_fashion_mnist": (("batch_size=32,128", "lr=0.01", "model.width=2"), 2, 0),
    "shallue_cifar10_resnet8": (("batch_size=32,128", "lr=0.01", "model.width=2"), 2, 0),
    "masters_luschi_resnet8": (("batch_size=8,32", "model.width=2", "lr=0.001"), 2, 2),
    "masters_luschi_resnet32": (("batch_size=8,32", "model.width=2", "lr=0.001"), 2, 2),
    "hoffer_ghost_batch_norm": (("batch_size=128,256", "model.width=8"), 6, 1),
    "goyal_warmup": (("batch_size=64", "warmup=0,100", "model.width=2"), 6, 1),
    "mccandlish_noise_scale": (("batch_size=16,64", "lr=0.01", "model.width=2"), 2, 2),
    "marek_small_batch": (
        ("batch_size=512", "lr=0.001", "model.width=16", "model.depth=1", "data.context=16", "data.train_size=512"),
        2,
        1,
    ),
}
FAST = ("shallue_mnist", "marek_small_batch")


def points(*arguments: str) -> list[Point]:
    with grid_composer(arguments) as composer:
        return composer.grid(arguments)[0]


def written(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")))


def test_every_study_has_a_reduced_form() -> None:
    assert sorted(REDUCED) == FILES


@pytest.fixture(scope="module")
def composed() -> Mapping[str, list[Point]]:
    """Every point of every study at its first seed, as for a user with the data and a GPU."""
    return {name: points(f"experiment=literature/{name}", "device=cpu", "seed=0") for name in FILES}


@pytest.mark.parametrize("name", FILES)
def test_a_study_asks_a_question_and_every_point_of_it_is_its_own(name: str, composed: Any) -> None:
    package, question = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[:2]

    assert package == "# @package _global_"
    assert "?" in question
    assert {point.config.study for point in composed[name]} == {name}
    assert len(composed[name]) >= 3
    assert len({str(to_dict(point.config)) for point in composed[name]}) == len(composed[name])
    # A published figure is an option of every run, but not part of its identity.
    assert all(len(point.published) == len(written(name)["published"]) for point in composed[name])


@pytest.mark.parametrize("name", FILES)
def test_a_figure_names_its_paper_and_what_of_the_study_it_is_compared_with(name: str, composed: Any) -> None:
    requested = [flat(to_dict(point.config)) for point in composed[name]]
    for figure in composed[name][0].published:
        assert "arXiv:" in figure.source
        # Runs stop at a goal, so their final values are not results.
        is_goal = figure.what.startswith("the goal, ")
        assert (figure.ours is None) == is_goal == (is_goal and composed[name][0].config.stop_at_target)
        assert is_goal or figure.ours in FOUND or figure.ours.partition(".")[0] in ("start", "best", "final")
        wanted = {"batch_size": figure.batch_size} if figure.batch_size else {}
        wanted |= dict(figure.where)
        assert any(all(options.get(key) == value for key, value in wanted.items()) for options in requested), wanted


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Small MNIST, Fashion-MNIST and CIFAR-10, in the formats they have on disk."""
    folder = tmp_path / "sets"
    grey, colour = (some_images(n, (1, 28, 28)) for n in (256, 40)), (some_images(n, (3, 32, 32)) for n in (160, 40))
    train, val = grey
    write_mnist(folder, train, val)
    write_mnist(folder, train, val, name="FashionMNIST", zipped=True)
    write_cifar_binary(folder, *colour, fine=False)
    return folder


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in FILES])
def test_a_reduced_form_runs_and_its_report_shows_both(name: str, lab: Lab, data: Path) -> None:
    reductions, count, with_ours = REDUCED[name]
    budget = SIZE["examples" if "examples" in written(name) else "epochs"]
    where = () if name == "marek_small_batch" else (f"data.folder='{data}'",)
    arguments = (f"experiment=literature/{name}", "seed=0", "device=cpu", "report=false", f"runs_dir='{lab.runs_dir}'")
    chosen = points(*arguments, "eval_every=100", *budget, *where, *reductions)
    distinct = list({str(to_dict(point.config)): point for point in chosen}.values())

    assert lab.run_sweep(*distinct) == 0

    records = read_records(lab.runs_dir / name)
    assert len(distinct) == count
    assert [(record.status, record.reason) for record in records] == [("completed", "")] * count
    report = make(lab.runs_dir / name)
    assert [row.theirs.what for row in report.published] == [f["what"] for f in written(name)["published"]]
    assert sum(row.ours is not None for row in report.published) == with_ours
