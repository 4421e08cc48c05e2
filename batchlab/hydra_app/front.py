"""The entry points: a command line, one point for Python callers, and the task of other packages' launchers."""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence

import hydra
from hydra._internal.callbacks import Callbacks
from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ValueType
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from hydra.version import setbase
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from batchlab.config import Request, RunConfig, from_hydra
from batchlab.errors import BadRequest
from batchlab.hydra_app.allowed_hydra_options import check_overrides
from batchlab.hydra_app.arguments import own_targets, read_arguments, refuse_options, to_continue
from batchlab.hydra_app.composing import Composer, count_of, pinned
from batchlab.hydra_app.explaining import translated
from batchlab.hydra_app.measured_noise_scale import with_number
from batchlab.hydra_app.plugins import register_plugins
from batchlab.printable import command_line
from batchlab.sweep.points import Point
from batchlab.sweep.processes.elsewhere import run_in_job

INTERRUPTED = (130, 143)


def point_task(cfg: DictConfig) -> int:
    """Hydra's task function, for launchers of other packages: runs one point of a checked grid."""
    request = from_hydra(cfg, with_number)
    return run_in_job(Point(pinned(request.run), tuple(HydraConfig.get().overrides.task)), request.sweep)


def launch(command: str, arguments: Sequence[str], settings: Mapping[str, int] | None = None) -> int:
    """Runs `batchlab train`, `sweep`, ... with `arguments`, ours and Hydra's; the exit code.

    `settings` are those of `find`; None for the other commands. Raises BadRequest (nothing was started) and EmptyGrid.
    """
    given = read_arguments(arguments)
    refuse_options(command, given.overrides)
    register_plugins(given.config_dir)
    sweeper = {"command": command} if settings is None else settings
    own = [] if settings is None else ["hydra/sweeper=find"]
    own += [f"hydra.sweeper.{name}={value}" for name, value in sweeper.items()]
    setbase("1.3")
    with _errors_translated():
        overrides = _checked(given.overrides)
        if given.hydra.cfg:
            overrides = _first_point(overrides)
            run = _composed(overrides).run  # refuses a bad config instead of showing it
            if run.noise_scale is not None:  # as a number, where the folder of a run was given
                overrides = [*overrides, f"noise_scale={run.noise_scale}"]
        given.hydra.multirun = not given.only_shows
        given.hydra.overrides = overrides if given.only_shows else [*overrides, *own]
        with _errors_raised():
            try:
                _run_hydra(given.hydra, get_args_parser(), point_task, config_path=None, config_name="config")
            except SystemExit as end:
                if end.code in INTERRUPTED and settings is None:
                    left = to_continue(arguments)
                    again = command_line(["batchlab", command, *left])
                    if left != list(arguments):
                        sys.stderr.write("points that were not started keep their results: --force runs all again\n")
                    sys.stderr.write(f"continue with: {again}\n")
                return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


def compose(overrides: Sequence[str], config_dir: str | None = None) -> RunConfig:
    """The one point that `overrides` describe, without running anything: for Python callers."""
    return pinned(request(overrides, config_dir).run)


def request(overrides: Sequence[str], config_dir: str | None = None) -> Request:
    """The request that `overrides` describe, with the device as it was requested."""
    register_plugins(config_dir)
    with _errors_translated():
        return _composed(_checked(overrides))


@contextlib.contextmanager
def grid_composer(overrides: Sequence[str], config_dir: str | None = None) -> Iterator[Composer]:
    """A composer for the grid that `overrides` describe and for variations of it; runs nothing."""
    register_plugins(config_dir)
    with _errors_translated(), hydra.initialize(version_base="1.3", config_path=None):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", _checked(overrides), run_mode=RunMode.MULTIRUN)
        yield Composer(HydraContext(config_loader=loader, callbacks=Callbacks()), master)


def _composed(overrides: Sequence[str]) -> Request:
    with hydra.initialize(version_base="1.3", config_path=None):
        return from_hydra(hydra.compose("config", list(overrides)), with_number)


def _first_point(overrides: Sequence[str]) -> list[str]:
    """`overrides` with the first value of each that has several: Hydra shows the config of one point only."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    first = []
    for override, line in zip(parsed, overrides, strict=True):
        if override.value_type is ValueType.GLOB_CHOICE_SWEEP:
            raise BadRequest(f"{line} chooses several configs, but only one can be shown: give its name")
        if override.is_sweep_override() and count_of(override):
            line = f"{override.get_key_element()}={next(override.sweep_string_iterator())}"
        first.append(line)
    if first != list(overrides):
        sys.stderr.write("config of the first point of the grid:\n")
    return first


def _checked(overrides: Sequence[str]) -> list[str]:
    """`overrides` as Hydra gets them; BadRequest for one of a setting that users may not change."""
    check_overrides(OverridesParser.create().parse_overrides(list(overrides)))
    return own_targets(overrides)


@contextlib.contextmanager
def _errors_translated() -> Iterator[None]:
    """Turns an error of Hydra into a BadRequest."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise translated(error) from error


@contextlib.contextmanager
def _errors_raised() -> Iterator[None]:
    """Makes Hydra raise its errors instead of printing them and exiting."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        del os.environ["HYDRA_FULL_ERROR"]
        if before is not None:
            os.environ["HYDRA_FULL_ERROR"] = before
