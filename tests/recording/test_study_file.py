"""What a study shows next to its runs: kept in its folder, added to by each sweep, readable even if damaged."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from batchlab.config.published import Published, published
from batchlab.errors import StorageError
from batchlab.recording import study_file
from batchlab.recording.run_folder import studies
from batchlab.recording.study_file import STUDY, add_published, read_published


def figure(what: str, value: float = 0.9, **more: Any) -> Published:
    (made,) = published([{"what": what, "value": value, "source": "Somebody et al. 2017", **more}])
    return made


def test_what_was_added_is_read_back_as_it_was(tmp_path: Path) -> None:
    figures = (
        figure("accuracy", batch_size=8, where={"precision": "bf16"}),
        figure("loss", spread=0.1, ours="best_rate"),
    )

    add_published(tmp_path / "runs/study", figures)

    assert read_published(tmp_path / "runs/study") == figures


def test_another_sweep_adds_its_figures_and_a_corrected_one_takes_the_place_of_the_old(tmp_path: Path) -> None:
    add_published(tmp_path, [figure("accuracy", 0.9), figure("loss", 1.0)])
    add_published(tmp_path, [figure("accuracy", 0.95), figure("accuracy", 0.8, batch_size=8)])

    found = [(one.what, one.value[0], one.batch_size) for one in read_published(tmp_path)]
    assert found == [("accuracy", 0.95, None), ("loss", 1.0, None), ("accuracy", 0.8, 8)]


def test_a_figure_with_another_text_replaces_its_old_one_and_figures_of_one_list_stay_apart(tmp_path: Path) -> None:
    add_published(tmp_path, [figure("best rate", 0.9, batch_size=8), figure("accuracy", 0.9), figure("loss", 0.9)])
    add_published(
        tmp_path, [figure("best learning rate", 0.9, batch_size=8), figure("loss", 0.9), figure("accuracy", 0.9)]
    )

    found = [one.what for one in read_published(tmp_path)]
    assert found == ["accuracy", "loss", "best learning rate"]


def test_the_same_figures_again_write_nothing(tmp_path: Path) -> None:
    add_published(tmp_path, [figure("accuracy")])
    before = (tmp_path / STUDY).stat()

    add_published(tmp_path, [figure("accuracy")])

    after = (tmp_path / STUDY).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_password_in_a_source_is_not_kept(tmp_path: Path) -> None:
    add_published(tmp_path, [Published("accuracy", (0.9, 0.9), "https://me:secret@papers.org/1")])

    assert "secret" not in (tmp_path / STUDY).read_text()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"published": {"what": "x"}}', "cannot be read"),
        ('{"published": [{"what": "x"}]}', "published[0].source=null"),
    ],
)
def test_a_damaged_file_is_reported_and_shows_nothing(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / STUDY).write_text(text)
    damaged: list[str] = []

    assert read_published(tmp_path, damaged) == ()
    assert len(damaged) == 1
    assert says in damaged[0]


NEWER = {"what": "accuracy", "value": 0.7, "source": "a paper", "n": 3}  # this version knows no `n`


def newer(folder: Path, *figures: dict[str, Any]) -> dict[str, Any]:
    values = {"schema_version": 2, "title": "of a newer version", "published": list(figures)}
    (folder / STUDY).write_text(json.dumps(values))
    return values


def test_a_figure_that_cannot_be_read_hides_no_other_one(tmp_path: Path) -> None:
    add_published(tmp_path, [figure("loss")])
    newer(tmp_path, NEWER, *json.loads((tmp_path / STUDY).read_text())["published"])
    damaged: list[str] = []

    assert read_published(tmp_path, damaged) == (figure("loss"),)
    assert [text for text in damaged if "unknown key 'published[0].n'" in text] == damaged != []


def test_what_a_newer_version_wrote_is_kept(tmp_path: Path) -> None:
    before = newer(tmp_path, NEWER, {"no": "figure"})

    assert add_published(tmp_path, [figure("accuracy"), figure("loss")]) is None

    kept = json.loads((tmp_path / STUDY).read_text())
    assert kept["published"][:2] == before["published"]
    assert [entry["what"] for entry in kept["published"][2:]] == ["accuracy", "loss"]
    assert {name: kept[name] for name in ("schema_version", "title")} == {
        "schema_version": 2,
        "title": "of a newer version",
    }


def test_a_file_that_is_damaged_is_set_aside_and_reported(tmp_path: Path) -> None:
    for text in ("{", '{"published": 1}'):
        (tmp_path / STUDY).write_text(text)

        reported = add_published(tmp_path, [figure("accuracy")])

        assert reported is not None
        assert "cannot be read" in reported
        assert f"it is kept as {STUDY}.damaged" in reported
        assert read_published(tmp_path) == (figure("accuracy"),)
    aside = [path.read_text() for path in sorted(tmp_path.glob(f"{STUDY}.damaged*"))]
    assert aside == ["{", '{"published": 1}']


def test_a_file_that_the_disk_does_not_give_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_published(tmp_path, [figure("accuracy")])
    before = (tmp_path / STUDY).read_text()

    def refused(path: Path) -> Any:
        raise OSError(errno.EIO, "Input/output error", str(path))

    with monkeypatch.context() as broken:
        broken.setattr(study_file, "read_json", refused)
        with pytest.raises(StorageError, match=r"study\.json cannot be read: Input/output error"):
            add_published(tmp_path, [figure("loss")])

    assert (tmp_path / STUDY).read_text() == before


def test_a_study_without_figures_has_no_file_and_nothing_to_say(tmp_path: Path) -> None:
    damaged: list[str] = []

    assert read_published(tmp_path, damaged) == ()
    assert damaged == []
    assert list(studies(tmp_path)) == []
