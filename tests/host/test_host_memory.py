"""What a machine has left: the smallest of what the kernel has and what each cgroup around the process leaves."""

from pathlib import Path

import psutil
import pytest

from batchlab.host.free_memory import available_bytes


def cgroup(root: Path, folder: str, **files: str) -> None:
    (root / "sys/fs/cgroup" / folder).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / "sys/fs/cgroup" / folder / name.replace("__", ".")).write_text(text)


def processes_cgroups(root: Path, text: str) -> None:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(text)


def test_without_a_limit_it_is_what_the_kernel_has():
    assert available_bytes() <= psutil.virtual_memory().total


@pytest.mark.parametrize(("outer", "expected"), [("max\n", 600), ("450\n", 250)])
def test_a_limit_of_version_2_leaves_what_is_not_used_and_an_outer_one_counts(tmp_path, outer, expected):
    processes_cgroups(tmp_path, "0::/job/step\n")
    cgroup(tmp_path, "job", memory__max=outer, memory__current="300\n", memory__stat="anon 5\ninactive_file 100\n")
    cgroup(
        tmp_path, "job/step", memory__max="1000\n", memory__current="500\n", memory__stat="inactive_file 100\nanon 1\n"
    )

    assert available_bytes(tmp_path) == expected


def test_a_limit_of_version_1_counts_too(tmp_path):
    processes_cgroups(tmp_path, "9:cpu:/a\n4:memory:/a/b\n0::/\n")
    cgroup(
        tmp_path,
        "memory/a/b",
        memory__limit_in_bytes="1000\n",
        memory__usage_in_bytes="900\n",
        memory__stat="total_inactive_file 50\n",
    )

    assert available_bytes(tmp_path) == 150
