"""Checkpoints as files: a damaged one is never handed out, and two whole ones are kept."""

import os
import random

import pytest

from batchlab.errors import StorageError
from batchlab.recording import checkpoint_files
from batchlab.recording.checkpoint_files import newest_step, remove_checkpoints, usable_checkpoints, write_checkpoint

OLDER, NEWER = bytes(random.Random(0).randbytes(3000)), bytes(random.Random(1).randbytes(3000))


@pytest.fixture
def two(tmp_path):
    """The older checkpoint's path and the newer one's."""
    return write_checkpoint(tmp_path, 100, OLDER), write_checkpoint(tmp_path, 200, NEWER)


def usable(folder):
    reported = []
    return [(path.name, content) for path, content in usable_checkpoints(folder, reported)], reported


def test_the_two_newest_are_kept_by_step_and_not_by_the_clock(tmp_path):
    made = [write_checkpoint(tmp_path, step, str(step).encode()) for step in (5, 90, 1000)]
    os.utime(made[1], (2e9, 2e9))  # the clock was set back after it

    found, reported = usable(tmp_path)

    assert found == [(made[2].name, b"1000"), (made[1].name, b"90")]
    assert reported == []
    assert newest_step(tmp_path) == 1000
    assert not made[0].exists()


def test_no_flipped_bit_is_taken_and_the_older_one_is(tmp_path, two):
    draw, taken = random.Random(2), []
    for _ in range(300):
        at = draw.randrange(len(NEWER) * 8)
        damaged = bytearray(NEWER)
        damaged[at // 8] ^= 1 << at % 8
        two[1].write_bytes(damaged)
        found, reported = usable(tmp_path)
        taken += [(name, content) for name, content in found if (name, content) != (two[0].name, OLDER)]
        assert reported == [
            f"checkpoint {two[1].name} cannot be used (its content does not match the hash in its name): "
            "moved to checkpoints/damaged/"
        ]
        assert (two[1].parent / "damaged" / two[1].name).read_bytes() == damaged

    assert taken == []


def test_no_truncated_one_is_taken(tmp_path, two):
    for length in range(0, len(NEWER), 7):
        two[1].write_bytes(NEWER[:length])

        assert usable(tmp_path)[0] == [(two[0].name, OLDER)]


def test_when_all_are_damaged_none_is_handed_out_and_none_is_deleted(tmp_path, two):
    for path in two:
        path.write_bytes(b"")

    assert usable(tmp_path) == ([], usable_said(two))
    assert sorted(path.name for path in (two[0].parent / "damaged").iterdir()) == sorted(path.name for path in two)
    assert newest_step(tmp_path) is None


def usable_said(paths):
    why = "its content does not match the hash in its name"
    return [f"checkpoint {p.name} cannot be used ({why}): moved to checkpoints/damaged/" for p in reversed(paths)]


def test_what_is_not_ours_is_left_alone_and_a_link_is_not_followed(tmp_path, two):
    folder = two[0].parent
    (folder / "notes.txt").write_text("mine")
    (folder / ".step000000300-0.pt.7-aa.tmp").write_text("half")
    link = folder / two[1].name.replace("step000000200", "step000000400")
    link.symlink_to(two[1])

    found, reported = usable(tmp_path)

    assert [name for name, _ in found] == [two[1].name, two[0].name]
    assert len(reported) == 1
    assert link.name in reported[0]
    assert sorted(p.name for p in folder.iterdir()) == sorted([two[0].name, two[1].name, "notes.txt", "damaged"])


def test_a_run_with_its_final_result_keeps_none_but_the_damaged(tmp_path, two):
    two[1].write_bytes(b"damaged")
    usable(tmp_path)

    remove_checkpoints(tmp_path)

    assert [path.name for path in two[0].parent.iterdir()] == ["damaged"]
    assert usable(tmp_path) == ([], [])


def test_a_whole_folder_of_checkpoints_goes_with_them(tmp_path, two):
    remove_checkpoints(tmp_path)
    remove_checkpoints(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_removed_run_folder_is_not_created_again_around_a_checkpoint(tmp_path):
    with pytest.raises(StorageError, match=f"{checkpoint_files.CHECKPOINTS} cannot be made: No such file"):
        write_checkpoint(tmp_path / "gone", 1, b"x")

    assert not (tmp_path / "gone").exists()
