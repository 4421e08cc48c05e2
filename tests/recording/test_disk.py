"""The one door to the disk: nobody else writes, nothing is half written, and what is refused is reported."""

import ast
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from torture.atomic import faults
from torture.faulty import FaultyOs, through

from batchlab.errors import StorageError
from batchlab.recording import disk

# Who else may change something on the disk, and why it is not done through the door.
ALLOWED = {
    "recording/disk.py": "it is the door",
    "host/locks.py": "locks between running programs, outside of every run and below the floor of the door",
    "sweep/processes/elsewhere.py: folder.mkdir": "another launcher's own files, private from their first moment",
    "data/images/idx_files.py: plain.open": "into a temporary folder, for torchvision to read",
    "sweep/processes/elsewhere.py: folder.parent.mkdir": "the way to them",
    "training/devices/process_memory.py: Path('/proc/self/clear_refs').write_text": "the kernel's mark, and no file",
}
CHANGES = {
    *("write_text", "write_bytes", "mkdir", "makedirs", "unlink", "rmdir", "rmtree", "touch", "symlink_to", "renames"),
    *("hardlink_to", "ftruncate", "truncate", "removedirs", "copyfile", "copytree", "mkstemp", "mkdtemp", "chmod"),
}
OF_OS_ALONE = {
    "replace",
    "rename",
    "remove",
    "write",
    "pwrite",
    "link",
    "symlink",
    "fsync",
}  # str and list have some too


def changes_the_disk(call: ast.Call) -> bool:
    """Whether a call makes, writes, moves or removes a file; reading is everybody's."""
    function = ast.unparse(call.func)
    name, given = function.rpartition(".")[2], [ast.unparse(argument) for argument in call.args]
    named = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if function in ("os.open", "os.fdopen"):
        return "O_RDONLY" not in "".join(given) and "os.devnull" not in given[:1] and given[1:] != ["'rb'"]
    if function == "Image.open":  # Pillow's, which only reads
        return False
    if name == "open":  # open(path, mode), path.open(mode)
        mode = named.get("mode", [*given, "'r'"][1 if function == "open" else 0])
        return re.search("[wax+]", mode) is not None
    if name == "truncate":
        return function == "os.truncate"
    return name in CHANGES or (name in OF_OS_ALONE and function.startswith("os."))


def writers(root: Path) -> Iterator[str]:
    for path in sorted((root / "batchlab").rglob("*.py")):
        name = str(path.relative_to(root / "batchlab"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and changes_the_disk(node):
                reported = f"{name}: {ast.unparse(node.func)}"
                if name not in ALLOWED and reported not in ALLOWED:
                    yield f"{reported} (line {node.lineno}) writes: let recording/disk.py do it"


def test_nobody_writes_but_through_the_door(repository):
    assert list(writers(repository)) == []


@pytest.mark.parametrize(
    "line",
    [
        "open(path, 'w')",
        "path.open(mode='ab')",
        "path.open('r+')",
        "path.write_text('x')",
        "os.open(path, os.O_WRONLY | os.O_CREAT)",
        "os.replace(a, b)",
        "os.write(1, b'x')",
        "path.mkdir()",
        "path.unlink()",
        "shutil.rmtree(folder)",
    ],
)
def test_who_writes_is_found(tmp_path, line):
    (tmp_path / "batchlab").mkdir()
    (tmp_path / "batchlab" / "run.py").write_text(line)

    assert [reported.split(":")[0] for reported in writers(tmp_path)] == ["run.py"]


def test_reading_is_everybodys(tmp_path):
    (tmp_path / "batchlab").mkdir()
    (tmp_path / "batchlab" / "run.py").write_text(
        "open(path)\npath.open('rb')\nos.open(path, os.O_RDONLY)\n'a'.replace('b', 'c')\nreplace(record, a=1)\n"
        "journal.truncate(0)\nos.open(os.devnull, os.O_WRONLY)\nsys.stdout.write('x')\n"
    )

    assert list(writers(tmp_path)) == []


def test_a_file_is_replaced_whole_or_not_at_all_wherever_a_call_fails(tmp_path):
    found = list(faults(tmp_path))

    assert [text for text in found if text] == []
    assert len(found) > 40


def test_what_is_moved_into_place_was_synced_before_and_its_name_after(tmp_path):
    with through(FaultyOs()) as door:
        disk.write_atomically(tmp_path / "file", "content")

    names = [(call.name, Path(call.path).name) for call in door.calls]
    moved = names.index(("replace", "file"))
    assert names[moved - 1][0] == "fsync"
    assert names[moved - 1][1].startswith(".file.")
    assert names[moved + 1 :] == [("open", tmp_path.name), ("fsync", tmp_path.name)]


def test_the_refusal_names_the_file_what_the_system_reports_and_what_to_do(tmp_path):
    (tmp_path / "file").write_text("x")

    with pytest.raises(StorageError, match=r"file/inner cannot be made: Not a directory; fix the disk or use runs_dir"):
        disk.make_folder(tmp_path / "file" / "inner")
    with pytest.raises(StorageError, match=r"gone/name cannot be written: No such file or directory"):
        disk.write_atomically(tmp_path / "gone" / "name", "x")
    assert not (tmp_path / "gone").exists()


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    for name in ("lock", "metrics.jsonl"):
        (tmp_path / name).symlink_to(elsewhere)

    with pytest.raises(StorageError, match=r"metrics\.jsonl cannot be written: Too many levels of symbolic links"):
        disk.open_to_append(tmp_path / "metrics.jsonl")
    with pytest.raises(StorageError, match="lock cannot be written"):
        disk.open_to_lock(tmp_path / "lock")
    disk.write_atomically(tmp_path / "lock", "own")
    assert not elsewhere.exists()
    assert (tmp_path / "lock").read_text() == "own"


def test_a_folder_whose_parent_is_gone_does_not_come_back(tmp_path):
    disk.make_folder_inside(tmp_path / "checkpoints")
    disk.make_folder_inside(tmp_path / "checkpoints")

    with pytest.raises(StorageError, match="checkpoints cannot be made: No such file or directory"):
        disk.make_folder_inside(tmp_path / "run" / "checkpoints")
    assert not (tmp_path / "run").exists()


def test_the_names_on_the_way_to_a_folder_are_synced_and_no_more(tmp_path):
    folder = tmp_path / "runs" / "study" / "run"
    folder.mkdir(parents=True)

    with through(FaultyOs()) as door:
        disk.sync_way_to(folder, levels=3)

    synced = [call.path for call in door.calls if call.name == "fsync"]
    assert synced == [str(folder.parent), str(folder.parents[1]), str(tmp_path)]


def test_what_was_left_half_written_is_swept_and_nothing_else(tmp_path):
    for name in (".record.json.1-ab.tmp", "record.json", "notes.tmp", ".hidden"):
        (tmp_path / name).touch()

    disk.sweep(tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "notes.tmp", "record.json"]


def test_one_at_a_time_is_inside(tmp_path):
    inside: list[str] = []
    first_is_in, may_leave = threading.Event(), threading.Event()

    def first() -> None:
        with disk.locked(tmp_path / "gate"):
            inside.append("first")
            first_is_in.set()
            may_leave.wait(10)
            inside.append("first leaves")

    def second() -> None:
        first_is_in.wait(10)
        with disk.locked(tmp_path / "gate"):
            inside.append("second")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    for thread in threads:
        thread.start()
    first_is_in.wait(10)
    may_leave.set()
    for thread in threads:
        thread.join(10)

    assert inside == ["first", "first leaves", "second"]


def test_a_file_system_without_locks_is_reported(tmp_path, monkeypatch):
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(37, os.strerror(37))

    monkeypatch.setattr(disk.fcntl, "flock", no_locks)

    with pytest.raises(StorageError, match="gate cannot be locked: No locks available"), disk.locked(tmp_path / "gate"):
        pytest.fail("it is inside without a lock")
