"""`batchlab dashboard`: TensorBoard for a study, on this machine only."""

import shlex
import socket
import sys
from pathlib import Path

from batchlab.cli.output import say
from batchlab.cli.parser import Parser
from batchlab.cli.studies import HOW_TO_START, RUNS_DIR, find_study, last_written
from batchlab.errors import BadRequest
from batchlab.printable import printable
from batchlab.recording.run_folder import studies

HOST = "127.0.0.1"
FIRST_PORT = 6006  # TensorBoard's own
PORTS_TRIED = 100
POINTS_PER_CURVE = 2000  # as many as a run writes (CONTRACTS); TensorBoard would drop some of them at random

EXAMPLES = """\
examples:
  batchlab dashboard                          the study that was written last
  batchlab dashboard runs/digits-mlp
  batchlab dashboard digits-mlp --port 7000

It listens on 127.0.0.1 only, as TensorBoard has no login.
From another machine: ssh -L 6006:127.0.0.1:6006 THIS_MACHINE, and open http://127.0.0.1:6006 there."""


def parser() -> Parser:
    """Its arguments."""
    made = Parser("dashboard", "Shows a study in TensorBoard.", EXAMPLES)
    made.add_argument(
        "study", nargs="?", metavar="STUDY", help="a study's name or path; default: the study written last"
    )
    made.add_argument("--port", type=int, default=FIRST_PORT, help="the first port to try (%(default)s)")
    made.add_argument("--runs-dir", default=RUNS_DIR, metavar="DIR", help="folder of the studies (%(default)s)")
    return made


def main(arguments: list[str]) -> int:
    """Chooses the study and the port, then runs TensorBoard until Ctrl-C."""
    _refuse_other_hosts(arguments)
    given = parser().parse_args(arguments)
    study = choose_study(given.study, Path(given.runs_dir))
    port = free_port(given.port)
    name = printable(study)
    say(f"Study: {name}" + ("" if given.study else " (the study written last)"))
    if port != given.port:
        say(f"Port {given.port} is in use; using {port} instead.")
    say(f"Open http://{HOST}:{port}; from another machine, first run: ssh -L {port}:{HOST}:{port} {_here()}")
    say("Press Ctrl-C to stop.")
    sys.stdout.flush()
    return run_tensorboard(tensorboard_arguments(study, port))


def tensorboard_arguments(study: Path, port: int) -> list[str]:
    """TensorBoard's own command line for `study`; it always names the host."""
    return [
        f"--logdir={study}",
        f"--host={HOST}",
        f"--port={port}",
        f"--samples_per_plugin=scalars={POINTS_PER_CURVE}",
        f"--window_title=batchlab: {printable(study.resolve().name)}",
    ]


def choose_study(text: str | None, runs_dir: Path) -> Path:
    """The requested study, or the one written last; `BadRequest` where there is none."""
    if text is not None:
        return find_study(text, runs_dir)
    there = studies(runs_dir)
    if not there:
        raise BadRequest(f"there are no runs yet in {runs_dir}/: {HOW_TO_START}")
    return max(there, key=lambda folder: (last_written(folder), folder.name))


def free_port(first: int) -> int:
    """`first`, or the next free port after it; `BadRequest` where there is none near."""
    if not 1 <= first <= 65535:
        raise BadRequest(f"--port {first} is invalid: a port must be a number from 1 to 65535")
    for port in range(first, min(first + PORTS_TRIED, 65536)):
        if _is_free(port):
            return port
    raise BadRequest(f"--port {first}: this port and the {PORTS_TRIED - 1} after it are in use; give another port")


def run_tensorboard(arguments: list[str]) -> int:
    """Runs TensorBoard until Ctrl-C or SIGTERM; in this process, so that no child process can be left behind."""
    try:
        from tensorboard import default, program

        server = program.TensorBoard(plugins=default.get_plugins())
        server.configure(argv=["tensorboard", *arguments])
        return 1 if server.main() else 0  # -1 where another program took the port meanwhile
    except KeyboardInterrupt:
        return 130


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As TensorBoard's server does: a port whose last connection is still closing may be used.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _refuse_other_hosts(arguments: list[str]) -> None:
    for argument in arguments:
        if argument.split("=")[0] in ("--host", "--bind_all", "--bind-all"):
            raise BadRequest(
                f"{argument} is refused: TensorBoard shows all to anyone who can reach it, so it listens on {HOST} "
                "only; reach it from another machine with ssh -L 6006:127.0.0.1:6006 THIS_MACHINE"
            )


def _here() -> str:
    return shlex.quote(socket.gethostname())
