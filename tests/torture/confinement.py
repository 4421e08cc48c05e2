"""What a run may not do: write outside of its folder, or let a secret into it."""

import base64
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from torture.forks import in_a_child
from torture.kth_call import whole
from torture.sweeps import sweep

SECRET = "hunter2-correct/horse+battery"
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.link", "os.symlink", "os.truncate", "os.chmod")
# The null device; the mark of this process's memory (training/peaks).
ALLOWED = ("/dev/null", "/proc/self/clear_refs")


def written_outside(runs_dir: Path, do: Any = whole) -> tuple[int, list[str]]:
    """How many writes a whole run makes, and those that are not below `runs_dir`."""

    def work() -> dict[str, list[str]]:
        seen: list[str] = []

        def hook(event: str, arguments: Sequence[Any]) -> None:
            if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike) and arguments[2] & WRITES:
                seen.append(_whole(arguments[0]))
            elif event in CHANGES:
                seen.extend(_whole(a) for a in arguments[:2] if isinstance(a, str | os.PathLike))

        sys.addaudithook(hook)
        do(runs_dir)
        # `ALLOWED` and what Python keeps of modules that it compiled are no output of a run.
        return {"seen": [path for path in seen if path not in ALLOWED and "__pycache__" not in path]}

    ending = in_a_child(work)
    assert ending.code == 0, ending.reported
    seen = ending.reported["seen"]
    # The folders above it are made where they are missing.
    above = {str(parent) for parent in (runs_dir, *runs_dir.parents)}
    return len(seen), [path for path in seen if not path.startswith(f"{runs_dir}/") and path not in above]


def _whole(path: str | bytes | os.PathLike[str]) -> str:
    """From the root, without following links: what is written is what was named."""
    return os.path.normpath(Path.cwd() / os.fsdecode(path))


def told_secrets(folder: Path) -> tuple[int, list[str]]:
    """A sweep whose environment holds a secret, under a key that says so and one that does not: the files that are
    there, and those that hold it, in any spelling."""
    folder.mkdir()
    with sweep(
        folder,
        "batch_size=16,32",
        "model.note=${oc.env:TORTURE_WORD}",
        "model.api_key=${oc.env:TORTURE_WORD}",
        environment={"TORTURE_WORD": SECRET},
    ) as running:
        code = running.end()
        assert code == 0, running.output
        files = [path for path in (folder / "runs").rglob("*") if path.is_file()]
        messages = [path for path in files if holds(path.read_bytes())]
        names = [path for path in (folder / "runs").rglob("*") if holds(str(path).encode())]
        output = ["the terminal"] if holds(running.output.encode()) else []
    return len(files), [str(path.relative_to(folder)) for path in (*messages, *names)] + output


def holds(content: bytes) -> bool:
    """Whether the secret is in it, plain, quoted for a URL, or in base64."""
    spelled = (SECRET.encode(), quote(SECRET, safe="").encode(), base64.b64encode(SECRET.encode()).rstrip(b"="))
    return any(spelling in content for spelling in spelled)
