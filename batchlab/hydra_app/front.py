"""The doors to Hydra: a command line, one point for Python callers, and the task of other packages' launchers."""

import contextlib
import os
import shlex
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
from batchlab.hydra_app.arguments import own_targets, read_arguments, refuse_what_is_for_runs, to_continue
from batchlab.hydra_app.composing import Composer, count_of, pinned
from batchlab.hydra_app.explaining import translated
from batchlab.hydra_app.measured_noise_scale import with_number
from batchlab.hydra_app.plugins import register_plugins
from batchlab.sweep.points import Point
from batchlab.sweep.processes.elsewhere import run_in_job

INTERRUPTED = (130, 143)


def point_task(cfg: DictConfig) -> int:
    """Hydra's task function, for launchers of other packages: runs one point of a grid that was checked."""
    request = from_hydra(cfg, with_number)
    return run_in_job(Point(pinned(request.run), tuple(HydraConfig.get().overrides.task)), request.sweep)


def launch(word: str, arguments: Sequence[str], settings: Mapping[str, int] | None = None) -> int:
    """Runs `batchlab train`, `sweep`, ... with `arguments`, ours and Hydra's; the exit code.

    `settings` are those of `find`, and mean that word. Raises BadRequest (nothing was started) and EmptyGrid.
    """
    asked = read_arguments(arguments)
    refuse_what_is_for_runs(word, asked.overrides)
    register_plugins(asked.config_dir)
    sweeper = {"word": word} if settings is None else settings
    own = [] if settings is None else ["hydra/sweeper=find"]
    own += [f"hydra.sweeper.{name}={value}" for name, value in sweeper.items()]
    setbase("1.3")
    with _in_our_words():
        overrides = _checked(asked.overrides)
        if asked.hydra.cfg:
            overrides = _first_point(overrides)
            run = _composed(overrides).run  # what would be refused is not shown as if it were none
            if run.noise_scale is not None:  # as a number, where it was named by a run
                overrides = [*overrides, f"noise_scale={run.noise_scale}"]
        asked.hydra.multirun = not asked.only_shows
        asked.hydra.overrides = overrides if asked.only_shows else [*overrides, *own]
        with _errors_raised():
            try:
                _run_hydra(asked.hydra, get_args_parser(), point_task, config_path=None, config_name="config")
            except SystemExit as end:
                if end.code in INTERRUPTED and settings is None:
                    left = to_continue(arguments)
                    again = shlex.join(["batchlab", word, *left])
                    if left != list(arguments):
                        sys.stderr.write("points that were not begun keep their old answers: --force runs all again\n")
                    sys.stderr.write(f"continue with: {again}\n")
                return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


def compose(overrides: Sequence[str], config_dir: str | None = None) -> RunConfig:
    """The one point that `overrides` describe, without running anything: for Python callers."""
    return pinned(request(overrides, config_dir).run)


def request(overrides: Sequence[str], config_dir: str | None = None) -> Request:
    """What `overrides` ask for, its device as it was asked for."""
    register_plugins(config_dir)
    with _in_our_words():
        return _composed(_checked(overrides))


@contextlib.contextmanager
def grid_composer(overrides: Sequence[str], config_dir: str | None = None) -> Iterator[Composer]:
    """What composes the grid that `overrides` describe, and its neighbours, without running anything."""
    register_plugins(config_dir)
    with _in_our_words(), hydra.initialize(version_base="1.3", config_path=None):
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
            raise BadRequest(f"{line} is several configs, and one can be shown: name it")
        if override.is_sweep_override() and count_of(override):
            line = f"{override.get_key_element()}={next(override.sweep_string_iterator())}"
        first.append(line)
    if first != list(overrides):
        sys.stderr.write("the first point of the grid:\n")
    return first


def _checked(overrides: Sequence[str]) -> list[str]:
    """`overrides` as Hydra is to get them, none of which reaches a setting that is not the user's."""
    check_overrides(OverridesParser.create().parse_overrides(list(overrides)))
    return own_targets(overrides)


@contextlib.contextmanager
def _in_our_words() -> Iterator[None]:
    """What Hydra has to refuse, as a BadRequest."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise translated(error) from error


@contextlib.contextmanager
def _errors_raised() -> Iterator[None]:
    """Hydra raises its errors, instead of printing them and ending, only if this is set."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        del os.environ["HYDRA_FULL_ERROR"]
        if before is not None:
            os.environ["HYDRA_FULL_ERROR"] = before
