"""Writes a study's report when its sweep has ended; if that fails, the sweep does not."""

import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TextIO

from batchlab import errors
from batchlab.printable import printable

# In a separate process: pandas and matplotlib, and their failures, stay out of the sweep's process and of a caller's
# notebook. Not with -m, which puts the current folder first: it may contain a pandas.py.
PROGRAM = """
import sys
sys.path.append(sys.argv[1])
from pathlib import Path
from batchlab.report.brief import main
sys.exit(main(Path(sys.argv[2]), width=int(sys.argv[3]) or None, about=set(sys.stdin.read().split("\\n"))))
"""
REPORT = "report.html"


def report(study: Path, *, width: int | None, stdout: TextIO, stderr: TextIO, about: Collection[str] = ()) -> None:
    """Writes the report of `study` and prints a summary of it; an error is one line on `stderr`.

    `width` is the terminal's, None without a terminal; `about` are the ids of the requested runs.
    """
    package = Path(errors.__file__).parents[1]
    command = [sys.executable, "-P", "-c", PROGRAM, str(package), str(study), str(width or 0)]
    try:
        ids = "\n".join(about)
        done = subprocess.run(command, input=ids, capture_output=True, check=False, encoding="utf-8", errors="replace")
    except KeyboardInterrupt:  # the sweep itself is finished and keeps its exit code
        _print_error(stderr, study, "stopped")
        return
    except OSError as error:
        _print_error(stderr, study, error.strerror or str(error))
        return
    stdout.write(done.stdout)
    stdout.flush()
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
        _print_error(stderr, study, last[0] if last else f"its process ended with exit code {done.returncode}")


def _print_error(stderr: TextIO, study: Path, why: str) -> None:
    stderr.write(f"batchlab: no report ({printable(why)}); `batchlab report {printable(study)}` makes it again\n")
