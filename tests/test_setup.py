"""The commands of `scripts/` set up their environment once, repair it, and then only run.

The real scripts run in a copy of the repository, with a stub Python on the PATH that records its calls and installs
nothing. So these tests need no network and are fast.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

TOOLS = ("sh", "cat", "cksum", "cp", "dirname", "readlink", "rm", "mkdir", "mv", "tail", "flock", "sleep")

PYTHON = r"""#!/bin/sh
echo "python $*" >>"$CALLS"
here=$(dirname "$0")
case "$*" in
-c*) [ -z "${TOO_OLD:-}" ] && echo "$0" ;;
"-m venv"*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo "version = 3.12.1" >"$3/pyvenv.cfg" ;;
*"pip install"*"--editable"*)
    if [ -n "${HANG:-}" ]; then : >"$HANG" && sleep 60; fi
    if [ -n "${SLOW:-}" ]; then sleep "$SLOW"; fi
    if [ -n "${BREAK:-}" ]; then echo "no room on the disk" && exit 1; fi
    printf '#!/bin/sh\necho "ran $* in $PWD, PYTHONPATH=${PYTHONPATH:-}"\n' >"$here/batchlab"
    chmod +x "$here/batchlab"
    ;;
*"-m mypy"*) [ -z "${ILL_TYPED:-}" ] ;;
esac
"""
UV = r"""#!/bin/sh
echo "uv $*" >>"$CALLS"
case "$*" in
venv*) python -m venv "$5" ;;
*--editable*) shift 3 && HANG= exec "$1" -m pip install "$@" ;;
esac
"""


@dataclass
class Clone:
    """A fresh clone in a folder with a space in its name, and its environment."""

    root: Path
    bin: Path
    calls_file: Path
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, script: str, *arguments: str, cwd: Path | None = None, **more: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.root / "scripts" / script) if "/" not in script else script, *arguments],
            cwd=cwd or self.root,
            env={"PATH": str(self.bin), "CALLS": str(self.calls_file), **self.environment, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, script: str, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        process = self.start(script, *arguments, **more)
        out, err = process.communicate(timeout=30)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    @property
    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []

    @property
    def installs(self) -> list[str]:
        return [call for call in self.calls if "--editable" in call and call.startswith("python")]

    def add(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)


@pytest.fixture
def clone(tmp_path: Path, repository: Path) -> Clone:
    made = Clone(tmp_path / "a clone", tmp_path / "bin", tmp_path / "calls")
    shutil.copytree(repository / "scripts", made.root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(repository / "pyproject.toml", made.root)
    made.bin.mkdir()
    for tool in (*TOOLS, "chmod"):
        where = shutil.which(tool)
        assert where is not None, tool
        (made.bin / tool).symlink_to(where)
    for name in ("python3", "python"):
        made.add(name, PYTHON)
    return made


def test_the_first_call_installs_and_then_is_the_command_line(clone: Clone) -> None:
    done = clone.run("batchlab", "sweep", "batch_size=8,32")

    assert (done.returncode, done.stdout) == (0, f"ran sweep batch_size=8,32 in {clone.root}, PYTHONPATH=\n")
    assert len(clone.installs) == 1
    assert "--constraint " + str(clone.root / "scripts/constraints.txt") in clone.installs[0]
    assert len(done.stderr.splitlines()) == 1
    assert re.search(r"setting up .* with pip, once: 2 to 5 minutes, 6 GB", done.stderr)


def test_the_second_call_only_looks_at_the_stamp(clone: Clone) -> None:
    clone.run("batchlab", "list")
    before = clone.calls

    done = clone.run("batchlab", "list")

    assert clone.calls == before  # no Python was started
    assert done.stderr == ""


def test_it_keeps_the_callers_folder_also_through_a_link(clone: Clone, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lab").symlink_to(clone.root / "scripts/batchlab")

    assert f"in {elsewhere}," in clone.run("./lab", "list", cwd=elsewhere).stdout
    assert len(clone.installs) == 1
    assert (clone.root / ".venv/batchlab-ready").exists()


def test_a_failed_set_up_says_why_and_the_next_call_starts_afresh(clone: Clone) -> None:
    failed = clone.run("batchlab", "list", BREAK="1")

    assert (failed.returncode, failed.stdout) == (1, "")
    assert "no room on the disk" in failed.stderr
    assert "run the command again" in failed.stderr

    (clone.root / ".venv/leftover").touch()
    repaired = clone.run("batchlab", "list")

    assert repaired.returncode == 0
    assert not (clone.root / ".venv/leftover").exists()


def test_a_killed_set_up_is_repaired_by_the_next_call(clone: Clone, tmp_path: Path) -> None:
    hanging = tmp_path / "hanging"
    process = clone.start("batchlab", "list", HANG=str(hanging))
    deadline = time.monotonic() + 20
    while not hanging.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (clone.root / ".venv/leftover").touch()

    repaired = clone.run("batchlab", "list")

    assert repaired.returncode == 0
    assert not (clone.root / ".venv/leftover").exists()
    assert not (clone.root / ".venv/batchlab-unfinished").exists()


@pytest.mark.parametrize("changed", ["pyproject.toml", "scripts/constraints.txt", ".venv/pyvenv.cfg"])
def test_what_the_set_up_was_made_from_is_in_the_stamp(clone: Clone, changed: str) -> None:
    clone.run("batchlab", "list")
    (clone.root / ".venv/kept").touch()
    with (clone.root / changed).open("a") as file:
        file.write("# changed\n")

    updated = clone.run("batchlab", "list")

    assert len(clone.installs) == 2
    assert "batchlab: updating " in updated.stderr
    assert (clone.root / ".venv/kept").exists()  # 6 GB are not downloaded again for one line
    assert clone.run("batchlab", "list").stderr == ""


def test_a_moved_clone_sets_itself_up_again(clone: Clone, tmp_path: Path) -> None:
    clone.run("batchlab", "list")
    clone.root = clone.root.rename(tmp_path / "moved")

    assert clone.run("batchlab", "list").returncode == 0
    assert len(clone.installs) == 2


@pytest.mark.parametrize("lost", ["bin/python", "bin/batchlab"])
def test_a_venv_that_lost_a_part_is_repaired(clone: Clone, lost: str) -> None:
    clone.run("batchlab", "list")
    (clone.root / ".venv" / lost).unlink()

    assert clone.run("batchlab", "list").returncode == 0
    assert len(clone.installs) == 2


def test_two_callers_take_turns(clone: Clone) -> None:
    both = [clone.start("batchlab", "list", SLOW="0.5") for _ in range(2)]
    message = [process.communicate(timeout=30)[1] for process in both]

    assert [process.returncode for process in both] == [0, 0]
    assert len(clone.installs) == 1
    assert sum("waiting for another set-up" in text for text in message) == 1


def test_uv_is_taken_where_there_is_one(clone: Clone) -> None:
    clone.add("uv", UV)

    done = clone.run("batchlab", "list")

    assert (done.returncode, "with uv, once: about 1 minute" in done.stderr) == (0, True)
    installs = [call for call in clone.calls if call.startswith("uv pip install")]
    assert len(installs) == 2
    assert all(f"--python {clone.root}/.venv/bin/python --constraint" in call for call in installs)


def test_without_a_python_it_says_so_in_one_line(clone: Clone) -> None:
    done = clone.run("batchlab", "list", TOO_OLD="1")

    assert done.returncode == 1
    assert done.stderr == (
        "batchlab: needs Python 3.11 or newer, but there is none on the PATH: install one and run the command again\n"
    )


def test_a_shim_without_a_python_behind_it_is_passed_over(clone: Clone) -> None:
    clone.add("python3", "#!/bin/sh\nexit 127\n")
    clone.add("python3.12", PYTHON)

    assert clone.run("batchlab", "list").returncode == 0


def test_the_callers_environment_stays_out_of_the_set_up_but_not_of_the_run(clone: Clone) -> None:
    clone.add("python3", PYTHON.replace('"python $*"', '"python $* [${PYTHONPATH:-}${PIP_TARGET:-}] $PIP_INDEX_URL"'))

    done = clone.run("batchlab", "list", PYTHONPATH="/mine", PIP_TARGET="/there", PIP_INDEX_URL="an-index")

    assert {re.sub(r".*(\[.*)", r"\1", call) for call in clone.calls} == {"[] an-index"}
    assert "PYTHONPATH=/mine" in done.stdout


def test_the_test_extra_serves_the_command_line_too_but_not_the_other_way_round(clone: Clone) -> None:
    clone.run("batchlab", "list")
    clone.run("test")
    assert len(clone.installs) == 2
    assert clone.installs[1].endswith("--editable .[test]")

    clone.run("batchlab", "list")
    assert len(clone.installs) == 2


def test_all_checks_run_and_the_last_line_names_the_failed_one(clone: Clone) -> None:
    done = clone.run("test", "-k", "floors", ILL_TYPED="1")

    checks = [call.removeprefix("python -m ") for call in clone.calls if re.search(r"-m (ruff|mypy|pytest)", call)]
    assert checks[:2] == ["ruff check .", "ruff format --check ."]
    assert sorted(checks[2:]) == [  # beside each other
        "mypy --strict batchlab",
        "pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder -k floors",
    ]
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "batchlab: these checks failed: mypy"
    assert clone.run("test").returncode == 0


def python_scripts() -> list[str]:
    """Names of the Python scripts that need batchlab's packages: all except slurm_here."""
    folder = Path(__file__).resolve().parents[1] / "scripts"
    firsts = {path.name: path.read_text().partition("\n")[0] for path in folder.iterdir() if path.is_file()}
    return sorted(name for name, first in firsts.items() if "python" in first and "." not in name)


NEED_PACKAGES = [name for name in python_scripts() if name != "slurm_here"]


@pytest.mark.parametrize("script", NEED_PACKAGES)
def test_a_script_typed_from_a_fresh_clone_makes_its_environment_and_runs_in_it(
    script: str, clone: Clone, tmp_path: Path
) -> None:
    clone.add("python3", PYTHON.replace('"python $*"', '"$0 $*"'))

    done = clone.run(str(clone.root / "scripts" / script), "--some", "a b", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert sum("--editable" in call for call in clone.calls) == 1
    assert clone.calls[-1] == f"{clone.root}/.venv/bin/python {clone.root}/scripts/{script} --some a b"


@pytest.mark.parametrize("script", NEED_PACKAGES)
def test_a_named_python_is_taken_and_nothing_is_set_up(script: str, clone: Clone, tmp_path: Path) -> None:
    clone.add("another", PYTHON.replace('"python $*"', '"another $* $PYTHONPATH"'))

    done = clone.run(str(clone.root / "scripts" / script), "-x", cwd=tmp_path, PYTHON="another", PYTHONPATH="/mine")

    assert done.returncode == 0, done.stderr
    assert clone.calls == [f"another {clone.root}/scripts/{script} -x {clone.root}:/mine"]
    assert not (clone.root / ".venv").exists()


def test_a_named_python_that_is_none_is_refused(clone: Clone) -> None:
    done = clone.run("bench_loop", PYTHON="no-such-python")

    assert done.returncode == 1
    assert "PYTHON=no-such-python is not a program" in done.stderr
    assert clone.calls == []


IMPORTS_TORCH = pytest.param("torture", marks=pytest.mark.slow)  # to name its kinds: 7 s


@pytest.mark.parametrize("script", [*(IMPORTS_TORCH if n == "torture" else n for n in NEED_PACKAGES), "slurm_here"])
def test_a_script_explains_itself(script: str, repository: Path, tmp_path: Path) -> None:
    """Even if the PATH's python3 has no packages: only slurm_here uses it."""
    bare = tmp_path / "python3"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": sys.executable}

    done = subprocess.run(
        [repository / "scripts" / script, "--help"], cwd=tmp_path, env=environment, capture_output=True, check=False
    )

    assert done.returncode == 0, done.stderr.decode()
    assert re.match(f"usage: (scripts/)?{script} ", done.stdout.decode())


@pytest.mark.parametrize(
    "script", ["scripts/batchlab", "scripts/python", "scripts/test", "scripts/setup.sh", ".ci/run"]
)
def test_shell_scripts_parse(script: str, repository: Path) -> None:
    first = (repository / script).read_text().splitlines()[0]
    shell = "bash" if "bash" in first else "sh"

    assert subprocess.run([shell, "-n", repository / script], check=False).returncode == 0
    assert script.endswith(".sh") or os.access(repository / script, os.X_OK)


def test_python_scripts_are_among_what_ruff_checks(repository: Path) -> None:
    ruff = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["ruff"]

    assert {f"scripts/{name}" for name in python_scripts()} == set(ruff["extend-include"])


def test_every_constraint_pins_one_version_and_every_requirement_has_one(repository: Path) -> None:
    lines = (repository / "scripts/constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"], "pip", "hatchling", "setuptools"]

    assert [pin for pin in pins if not re.fullmatch(r"[a-z0-9_.-]+==[0-9][\w.]*", pin)] == []
    pinned = {pin.partition("==")[0] for pin in pins}
    assert len(pinned) == len(pins)
    assert {re.split(r"[<>=!~; \[]", name.lower())[0] for name in wanted} - pinned == set()


def workflow_faults(text: str) -> list[str]:
    """Unsafe parts of a workflow: an action that is not pinned, a token with write access."""
    workflow = yaml.safe_load(text)
    faults = [
        f"not pinned to a commit: {used}"
        for used in re.findall(r"uses:\s*(\S+)", text)
        if not re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", used)
    ]
    for name, part in {"the workflow": workflow, **workflow["jobs"]}.items():
        permissions = part.get("permissions", {} if name != "the workflow" else "all")
        if isinstance(permissions, str) or set(permissions.values()) - {"read", "none"}:
            faults.append(f"{name} may write: {permissions}")
    return faults


def test_workflows_are_pinned_and_read_only(repository: Path) -> None:
    workflows = sorted((repository / ".github/workflows").glob("*.y*ml"))

    assert workflows
    assert [fault for path in workflows for fault in workflow_faults(path.read_text())] == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("permissions: {contents: read}\njobs: {a: {steps: [{uses: actions/checkout@v5}]}}", "not pinned"),
        ("jobs: {a: {steps: []}}", "the workflow may write"),
        ("permissions: write-all\njobs: {a: {steps: []}}", "the workflow may write"),
        ("permissions: {contents: read}\njobs: {a: {permissions: {contents: write}}}", "a may write"),
    ],
)
def test_the_check_of_workflows_goes_red(text: str, fault: str) -> None:
    assert any(fault in message for message in workflow_faults(text))


def test_workflows_run_the_pythons_that_the_package_names(repository: Path) -> None:
    workflow = yaml.safe_load((repository / ".github/workflows/ci.yml").read_text())
    named = re.findall(r"Python :: (3\.\d+)", (repository / "pyproject.toml").read_text())

    assert [job["strategy"]["matrix"]["python"] for job in workflow["jobs"].values()] == [named]
