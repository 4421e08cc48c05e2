"""`batchlab doctor`: what this machine can do, and what is wrong with it."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from batchlab.cli.machine import Findings, read_machine, read_nvidia, read_software
from batchlab.cli.output import definitions, say
from batchlab.cli.parser import Parser
from batchlab.cli.studies import RUNS_DIR
from batchlab.host.device_choice import NoCuda, why_no_cuda
from batchlab.host.nvml import read_driver
from batchlab.host.torch_build import installed_build
from batchlab.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

PROBE = ("-m", "batchlab.cli.torch_probe")
PROBE_SECONDS = 300  # a cold import from a network disk takes a minute

EXAMPLES = """\
examples:
  batchlab doctor
  batchlab doctor --json

All values are read or measured when it runs. The exit code is 1 where something prevents a run, else 0."""


def parser() -> Parser:
    """Its arguments."""
    made = Parser("doctor", "Shows what this machine can do, and what is wrong with it.", EXAMPLES)
    made.add_argument("--runs-dir", default=RUNS_DIR, metavar="DIR", help="folder of the studies (%(default)s)")
    made.add_argument("--json", action="store_true", help="as JSON, for programs")
    return made


def main(arguments: list[str]) -> int:
    """Examines everything and shows it; returns 1 where something prevents a run."""
    given = parser().parse_args(arguments)

    from rich.console import Console

    with Console(stderr=True).status("Reading, and measuring for some seconds..."):
        found = examine(Path(given.runs_dir))
    if given.json:
        problems = [{"prevents_running": prevents, "what": what} for prevents, what in found.problems]
        say(json.dumps({"facts": found.facts, "problems": problems}, indent=2))
    else:
        show(found, Console(highlight=False))
    return 1 if any(prevents for prevents, _ in found.problems) else 0


def examine(runs_dir: Path) -> Findings:
    """Everything that can be read or measured."""
    found = Findings()
    read_software(found)
    read_machine(found, runs_dir)  # before the probe adds to the load
    probe = [sys.executable, *PROBE]
    answers = probe_pytorch(found, probe)
    driver = read_driver()
    gpus = read_nvidia(found, driver)
    judge_cuda(found, gpus, answers, why_no_cuda("cuda", os.environ, installed_build(), driver))
    probe_gpus(found, int(str(answers.get("cuda_devices", 0))), probe)
    return found


def probe_gpus(found: Findings, count: int, probe: Sequence[str]) -> None:
    """Tries each GPU in a separate process; a failure prevents a run only where no other GPU can be used."""
    tried: dict[str, Findings] = {}
    for index in range(count):
        device = f"cuda:{index}" if index else "cuda"  # the name of the first GPU in a run that gives no index
        tried[device] = Findings(facts=found.facts)
        probe_pytorch(tried[device], [*probe, device])
    usable = [device for device, one in tried.items() if not any(prevents for prevents, _ in one.problems)]
    for one in tried.values():
        for prevents, what in one.problems:
            other = f" ({usable[0]} can be used)" if prevents and usable else ""
            found.problem(prevents and not usable, what + other)


def probe_pytorch(found: Findings, command: list[str]) -> dict[str, object]:
    """Runs the probe and adds its findings; returns its other answers (`cuda_build`, `cuda_available`)."""
    try:
        ended = subprocess.run(command, capture_output=True, timeout=PROBE_SECONDS, check=False)
        output, trouble, code = ended.stdout, ended.stderr, f"exit code {ended.returncode}" if ended.returncode else ""
    except subprocess.TimeoutExpired as error:
        output, trouble, code = error.stdout or b"", b"", f"no answer in {PROBE_SECONDS} s"
    answers: dict[str, object] = {"doing": "starting Python"}
    for line in output.decode(errors="replace").splitlines():
        try:
            finding = json.loads(line)
        except ValueError:
            continue  # printed by a package while it was imported
        if "fact" in finding:
            found.fact(*finding["fact"])
        elif "problem" in finding:
            found.problem(*finding["problem"])
        else:
            answers |= finding
    if code:
        last = (trouble.decode(errors="replace").strip().splitlines() or ["no error message"])[-1]
        found.problem(True, f"PyTorch failed while {answers['doing']} ({code}): {last}")
    return answers


def judge_cuda(found: Findings, gpus: int, answers: dict[str, object], lack: NoCuda | None = None) -> None:
    """Whether PyTorch can use the GPUs that the driver reports; `lack` is the reason if not, where it is known."""
    if not gpus or answers.get("cuda_available", True):
        return
    if answers.get("cuda_build") and lack is not None:
        instead = f"; {lack.instead}" if lack.instead else ""
        found.problem(True, f"PyTorch cannot use the GPU here: {lack.what}{instead}; device=cpu runs without it")
    elif answers.get("cuda_build"):
        what = "PyTorch is built for CUDA but cannot use the GPU here: the driver may be too old for that CUDA, or "
        found.problem(True, what + "CUDA_VISIBLE_DEVICES hides it; device=cpu runs without it")
    else:
        what = "there is an NVIDIA GPU, but this PyTorch is built without CUDA, so runs use the CPU; "
        found.problem(False, what + "install a CUDA build: https://pytorch.org/get-started/locally")


def show(found: Findings, console: "Console") -> None:
    """Prints the facts by section, then what is wrong."""
    from rich.text import Text

    columns = min(console.width, 110) if console.is_terminal else 1000  # a log is not wrapped
    for section, facts in found.facts.items():
        rows = [(printable(name), printable(value)) for name, value in facts.items()]
        console.print(Text(section, style="bold"))
        console.print(Text(definitions(rows, columns=columns)), soft_wrap=True)
    console.print()
    for prevents, what in found.problems:
        mark = Text("Wrong: ", style="bold red") if prevents else Text("Note: ", style="bold yellow")
        console.print(mark + Text(printable(what)), soft_wrap=not console.is_terminal)
    if not any(prevents for prevents, _ in found.problems):
        console.print(Text("Nothing prevents a run.", style="green"))
