"""Which files are a run's code: what is found is hashed, nothing is imported, nothing else is looked at."""

import hashlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from batchlab.recording.code_files import code_files, code_fingerprint, code_targets

POISON = "\nraise SystemExit('this file was run')\n"  # at the end of every file: nothing may run it


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + POISON, encoding="utf-8")


def found(folder: Path, *targets: str) -> list[str]:
    return list(code_files(targets, here=folder))


def test_a_file_is_named_from_its_folder_and_hashed_by_its_bytes(tmp_path: Path) -> None:
    write(tmp_path, {"my_net.py": "class Net: pass"})

    expected = hashlib.sha256((tmp_path / "my_net.py").read_bytes()).hexdigest()[:16]
    assert code_files(["my_net.Net"], here=tmp_path) == {"my_net.py": expected}


def test_the_current_folder_is_looked_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "here", {"my_net.py": "where = 'here'"})
    write(tmp_path / "elsewhere", {"my_net.py": "where = 'elsewhere'", "other_net.py": ""})
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))

    assert code_files(["my_net.Net", "other_net.Net"]) == {
        "my_net.py": hashlib.sha256((tmp_path / "here/my_net.py").read_bytes()).hexdigest()[:16],
        "other_net.py": hashlib.sha256((tmp_path / "elsewhere/other_net.py").read_bytes()).hexdigest()[:16],
    }


IMPORTS = {
    "import layers": ["layers.py"],
    "import pkg.deep.layers": ["pkg/__init__.py", "pkg/deep/__init__.py", "pkg/deep/layers.py"],
    "import pkg.deep.layers as l": ["pkg/__init__.py", "pkg/deep/__init__.py", "pkg/deep/layers.py"],
    "from layers import Layer": ["layers.py"],
    "from layers import *": ["layers.py"],
    "from pkg import deep": ["pkg/__init__.py", "pkg/deep/__init__.py"],
    "from pkg.deep import layers, nothing": ["pkg/__init__.py", "pkg/deep/__init__.py", "pkg/deep/layers.py"],
    "def f():\n    if f:\n        import layers": ["layers.py"],
    "try:\n    import fast\nexcept ImportError:\n    import layers": ["layers.py"],
    "import layers, os, torch.nn, numpy.linalg, sys": ["layers.py"],
    "from spread.out import layers": ["spread/out/layers.py"],  # packages without __init__.py
    "import spread.out.layers": ["spread/out/layers.py"],
    "import absent.layers": [],
    "import time, sys": [],  # built in, whatever is called so here
    "from . import layers": [],  # a module outside any package cannot
    "import batchlab.science.scaling.crossings\nfrom batchlab import Task": [],
}


@pytest.mark.parametrize(("statement", "more"), IMPORTS.items(), ids=repr)
def test_what_is_imported_is_code_too(statement: str, more: list[str], tmp_path: Path) -> None:
    everything = ["layers.py", "pkg/__init__.py", "pkg/layers.py", "pkg/deep/__init__.py", "pkg/deep/layers.py"]
    write(
        tmp_path,
        {"my_net.py": statement} | dict.fromkeys([*everything, "spread/out/layers.py", "stray.py", "time.py"], ""),
    )

    assert found(tmp_path, "my_net.Net") == sorted(["my_net.py", *more])


RELATIVE = {
    "from . import layers": ["pkg/deep/layers.py"],
    "from .layers import Layer": ["pkg/deep/layers.py"],
    "from .. import layers": ["pkg/layers.py"],
    "from ..layers import Layer": ["pkg/layers.py"],
    "from ..side.layers import Layer": ["pkg/side/__init__.py", "pkg/side/layers.py"],
    "from ... import layers": [],  # beyond the top
    "from ...layers import Layer": [],
    "from .... import layers": [],
}


@pytest.mark.parametrize(("statement", "more"), RELATIVE.items(), ids=repr)
@pytest.mark.parametrize("module", ["net.py", "__init__.py"])
def test_relative_imports_start_from_the_package(statement: str, more: list[str], module: str, tmp_path: Path) -> None:
    write(
        tmp_path,
        dict.fromkeys(["layers.py", "pkg/layers.py", "pkg/deep/layers.py", "pkg/side/layers.py"], "")
        | dict.fromkeys(["pkg/__init__.py", "pkg/deep/__init__.py", "pkg/side/__init__.py", "pkg/deep/net.py"], "")
        | {f"pkg/deep/{module}": statement},
    )

    expected = {"pkg/__init__.py", "pkg/deep/__init__.py", "pkg/deep/net.py", *more}
    assert found(tmp_path, "pkg.deep.net.Net") == sorted(expected)


def test_a_target_that_a_package_hands_on_leads_to_its_file(tmp_path: Path) -> None:
    write(tmp_path, {"my_pkg/__init__.py": "from .net import Net", "my_pkg/net.py": "", "my_pkg/unused.py": ""})

    assert found(tmp_path, "my_pkg.Net") == ["my_pkg/__init__.py", "my_pkg/net.py"]


def test_only_what_the_code_can_reach_changes_the_fingerprint(tmp_path: Path) -> None:
    write(tmp_path, {"my_net.py": "import a", "a.py": "import b", "b.py": "import c", "c.py": "", "unrelated.py": ""})
    before = code_files(["my_net.Net"], here=tmp_path)

    write(tmp_path, {"unrelated.py": "# a comment"})
    same = code_files(["my_net.Net"], here=tmp_path)
    write(tmp_path, {"c.py": "# a comment"})
    after = code_files(["my_net.Net"], here=tmp_path)

    assert same == before
    assert {name for name in before if before[name] != after[name]} == {"c.py"}
    assert code_fingerprint(same) == code_fingerprint(before) != code_fingerprint(after)


def test_a_file_that_moves_changes_the_fingerprint(tmp_path: Path) -> None:
    assert code_fingerprint({"a.py": "1", "b.py": "2"}) == code_fingerprint({"b.py": "2", "a.py": "1"})
    assert code_fingerprint({"a.py": "1", "b.py": "2"}) != code_fingerprint({"a.py": "2", "b.py": "1"})
    assert len(code_fingerprint({})) == 16


def test_a_file_made_a_moment_ago_is_found(tmp_path: Path) -> None:
    """Python's finder goes by the folder's time, whose ticks are coarse."""
    assert found(tmp_path, "my_net.Net") == []
    before = tmp_path.stat()
    write(tmp_path, {"my_net.py": ""})
    os.utime(tmp_path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert found(tmp_path, "my_net.Net") == ["my_net.py"]


def test_files_that_import_each_other_end(tmp_path: Path) -> None:
    write(tmp_path, {"my_net.py": "import a, my_net", "a.py": "from b import x", "b.py": "import a, my_net"})

    assert found(tmp_path, "my_net.Net") == ["a.py", "b.py", "my_net.py"]


@pytest.mark.parametrize(
    "broken",
    [
        b"import layers\ndef f(:\n",
        b"\0import layers",
        b"\xff\xfe",
        b"# coding: nonsense\n",
        b"x = 1" + b" + 1" * 10_000,
        b"-" * 10**6,
    ],
    ids=["syntax", "null", "bytes", "coding", "nested", "deep"],
)
def test_a_file_that_is_no_python_counts_by_its_bytes(broken: bytes, tmp_path: Path) -> None:
    write(tmp_path, {"my_net.py": "import a", "layers.py": ""})
    (tmp_path / "a.py").write_bytes(broken)

    files = code_files(["my_net.Net"], here=tmp_path)

    assert files.keys() == {"a.py", "my_net.py"}
    assert files["a.py"] == hashlib.sha256(broken).hexdigest()[:16]


def test_what_python_would_warn_of_is_not_shown_here(tmp_path: Path) -> None:
    write(tmp_path, {"my_net.py": "pattern = '\\d'"})

    with warnings.catch_warnings(record=True) as reported:
        warnings.simplefilter("always")
        assert found(tmp_path, "my_net.Net") == ["my_net.py"]

    assert reported == []


def test_names_that_are_no_names_find_nothing(tmp_path: Path) -> None:
    write(tmp_path, {"my_net.py": ""})
    hostile = [
        "",
        ".",
        "..",
        "../my_net",
        "/etc/passwd",
        "my_net",
        "a\0b.c",
        "my-net.Net",
        ".my_net.Net",
        "nowhere.Net",
    ]

    assert found(tmp_path, *hostile) == ["my_net.py"]  # of the one that is a name


def test_of_what_is_installed_and_of_ours_the_target_s_file_alone(tmp_path: Path) -> None:
    targets = ["torch.optim.SGD", "batchlab.models.mlp.MLP", "random.Random", "sklearn.datasets.load_digits"]

    assert found(tmp_path, *targets) == [
        "batchlab/models/mlp.py",
        "random.py",
        "sklearn/datasets/__init__.py",
        "torch/optim/__init__.py",
    ]


def test_a_folder_called_like_ours_does_not_pass_for_it(tmp_path: Path) -> None:
    write(
        tmp_path, {"batchlab/__init__.py": "", "batchlab/models/__init__.py": "", "batchlab/models/mlp.py": "# other"}
    )

    assert code_files(["batchlab.models.mlp.MLP"], here=tmp_path) == code_files(["batchlab.models.mlp.MLP"])

    write(tmp_path, {"my_net.py": "import batchlab.models.mlp"})
    assert found(tmp_path, "my_net.Net") == ["my_net.py"]


def test_an_import_of_an_installed_package_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "venv" / "site-packages"
    write(installed, {"their_net.py": "import their_layers", "their_layers.py": ""})
    write(tmp_path, {"my_net.py": "import their_net"})
    monkeypatch.syspath_prepend(str(installed))

    assert found(tmp_path, "my_net.Net") == ["my_net.py"]
    assert found(tmp_path, "their_net.Net") == ["their_net.py"]


def test_a_package_that_is_installed_to_be_edited_is_the_user_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some are known to a finder of their own, and to no entry of the path."""
    project = tmp_path / "project"
    write(project, {"my_pkg/__init__.py": "", "my_pkg/net.py": "from my_pkg import layers", "my_pkg/layers.py": ""})

    class Finder:
        @staticmethod
        def find_spec(name: str, path: object, target: object = None) -> object:
            from importlib.util import spec_from_file_location

            return spec_from_file_location(name, project / "my_pkg/__init__.py") if name == "my_pkg" else None

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])

    assert found(tmp_path, "my_pkg.net.Net") == ["my_pkg/__init__.py", "my_pkg/layers.py", "my_pkg/net.py"]


ASK = """
import json, sys
from pathlib import Path

opened = []
sys.addaudithook(lambda event, about: opened.append(str(about[0])) if event == "open" else None)
before = set(sys.modules)
from batchlab.recording.code_files import code_files
mine = [] if len(sys.argv) < 2 else [__import__(name) for name in sys.argv[1:]]
del opened[:]
known = set(sys.modules)
files = code_files(["my_pkg.net.Net", "my_data.load"])
here = str(Path.cwd())
print(json.dumps([files, [path for path in opened if path.startswith(here)], sorted(set(sys.modules) - known)]))
"""


def ask(folder: Path, *imported: str) -> tuple[dict[str, str], list[str], list[str]]:
    """What another process answers, which files of this folder it opened for it, and what it imported."""
    repository = str(Path(__file__).resolve().parents[2])
    answer = subprocess.run(
        [sys.executable, "-c", ASK, *imported],
        cwd=folder,
        env={"PYTHONPATH": repository, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    files, opened, modules = json.loads(answer.stdout)
    return files, opened, modules


def test_a_folder_of_2000_files_is_not_read_and_nothing_is_imported(tmp_path: Path) -> None:
    write(tmp_path, {"my_pkg/__init__.py": "", "my_pkg/net.py": "from my_pkg import layers", "my_pkg/layers.py": ""})
    write(tmp_path, {"my_data.py": "import csv"} | {f"file_{i}.py": "import my_pkg" for i in range(2000)})
    needed = ["my_data.py", "my_pkg/__init__.py", "my_pkg/layers.py", "my_pkg/net.py"]

    files, opened, modules = ask(tmp_path)

    assert list(files) == needed
    relative = sorted(str(Path(path).relative_to(tmp_path)) for path in opened)
    assert relative == sorted([*needed, *needed])  # once for its hash, once for its imports
    assert [name for name in modules if name.startswith("my_")] == []


def test_every_process_gives_the_same_result_whatever_it_has_imported(tmp_path: Path) -> None:
    for name in ("my_pkg/net.py", "my_pkg/__init__.py", "my_data.py", "layers.py", "other_net.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("import layers\n" if name == "my_pkg/net.py" else "")

    fresh, _, _ = ask(tmp_path)
    after_many, _, _ = ask(tmp_path, "other_net", "my_pkg.net", "my_data")

    assert fresh == after_many == code_files(["my_data.load", "my_pkg.net.Net"], here=tmp_path)
    assert "other_net.py" not in fresh
    assert "layers.py" in fresh


def test_the_targets_of_a_config_are_those_of_its_groups() -> None:
    config = {
        "model": {"_target_": "my_net.Net", "width": 3},
        "data": {"_target_": "my_data.load"},
        "optimizer": {"_target_": "torch.optim.SGD"},
        "schedule": {"_target_": "my_schedules.poly"},
        "instruments": {"mine": {"_target_": "my_instruments.Mine"}, "also": {"_target_": "my_net.Net"}, "odd": 3},
        "target": {"metric": "val/loss"},
    }

    named = ("my_data.load", "my_instruments.Mine", "my_net.Net", "my_schedules.poly", "torch.optim.SGD")
    assert code_targets(config) == named
    assert code_targets({"schedule": "cosine"}) == ()
    assert code_targets({}) == ()
    assert code_targets({"model": "my_net.Net", "data": {"_target_": 3}, "instruments": None}) == ()
