"""The door to the disk: whole or not at all."""

import json
import os
import stat
from pathlib import Path

import pytest

from batchlab.recording import disk, files


def test_a_write_that_fails_leaves_the_old_content_and_nothing_aside(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    disk.write_atomically(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        disk.write_atomically(path, "new")

    assert path.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_a_link_in_place_of_the_file_is_replaced_and_what_it_points_to_is_not_written(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("not yours")
    (tmp_path / "config.yaml").symlink_to(elsewhere)

    disk.write_atomically(tmp_path / "config.yaml", b"mine")

    assert elsewhere.read_text() == "not yours"
    assert not (tmp_path / "config.yaml").is_symlink()


def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "usual").touch()

    disk.write_atomically(tmp_path / "ours", "x")

    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)


def test_json_of_anything_is_json_for_every_parser():
    def refuse(constant):
        raise AssertionError(constant)

    odd = {"a": [float("nan"), (float("inf"), -float("inf"))], "path": Path("x"), "lone": "\udcff", 1: {2}}

    text = files.to_json(odd)

    text.encode()
    assert json.loads(text, parse_constant=refuse) == {
        "a": ["nan", ["inf", "-inf"]],
        "path": "x",
        "lone": "?",
        "1": [2],
    }


def test_now_is_utc_in_the_form_of_the_contract():
    from datetime import UTC, datetime

    output = datetime.strptime(files.now_utc(), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)

    assert abs((datetime.now(UTC) - output).total_seconds()) < 5
