"""A study's report when its sweep has ended: a view of the run folders, whose failure is no sweep's."""

import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TextIO

from batchlab import errors
from batchlab.printable import printable

# In a process of its own: the sweep's would have to take in pandas and matplotlib, whose faults would be its own, and a
# caller's notebook would get them too. Not by -m, which puts the current folder first: it may hold a pandas.py.
PROGRAM = """
import sys
sys.path.append(sys.argv[1])
from pathlib import Path
from batchlab.report.brief import main
sys.exit(main(Path(sys.argv[2]), width=int(sys.argv[3]) or None, about=set(sys.stdin.read().split("\\n"))))
"""
REPORT = "report.html"


def report(study: Path, *, width: int | None, stdout: TextIO, stderr: TextIO, about: Collection[str] = ()) -> None:
    """Writes the report of `study` and says in a few lines what is in it; what goes wrong is one line on `stderr`.

    `width` is the terminal's, None where there is none; `about` are the ids of the runs that were asked for.
    """
    package = Path(errors.__file__).parents[1]
    command = [sys.executable, "-P", "-c", PROGRAM, str(package), str(study), str(width or 0)]
    try:
        ids = "\n".join(about)
        done = subprocess.run(command, input=ids, capture_output=True, check=False, encoding="utf-8", errors="replace")
    except KeyboardInterrupt:  # the sweep itself is done, and its exit code stands
        _tell(stderr, study, "stopped")
        return
    except OSError as error:
        _tell(stderr, study, error.strerror or str(error))
        return
    stdout.write(done.stdout)
    stdout.flush()
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
        _tell(stderr, study, last[0] if last else f"its process ended with {done.returncode}")


def _tell(stderr: TextIO, study: Path, why: str) -> None:
    stderr.write(f"batchlab: no report ({printable(why)}); `batchlab report {printable(study)}` makes it again\n")
