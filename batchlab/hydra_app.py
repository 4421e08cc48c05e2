"""All contact with Hydra: search path, plugins, the grid, and what its errors mean.

`batchlab sweep` is `@hydra.main` with `--multirun`. A Sweeper of ours composes the whole grid; our default Launcher
stands for this machine's supervisor, and launchers of other packages get the points that are left to run. The plugins
are registered while the program runs: an installed `hydra_plugins` package would change every other Hydra program of
the environment.
"""

import contextlib
import copy
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.plugins.launcher import Launcher
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from batchlab.config import RunConfig, from_hydra, knob_names
from batchlab.config_folder import config_folder
from batchlab.errors import BadRequest, EmptyGrid, did_you_mean
from batchlab.sweep.conduct import conduct, run_one
from batchlab.sweep.machine import resolve_device
from batchlab.sweep.supervisor import Point

GROUPS_OF_OWN = ("data", "model", "optimizer")  # groups that a user's `_target_` may fill
INTERRUPTED = (130, 143)
SHOWING = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion", "-sc", "--version")


@hydra.main(version_base="1.3", config_path=None, config_name="config")
def point_task(cfg: DictConfig) -> int:
    """Hydra's task function, for launchers of other packages: runs one point of a grid that was checked."""
    return run_one(Point(_pinned(from_hydra(cfg)), tuple(HydraConfig.get().overrides.task)))


def launch(word: str, arguments: Sequence[str]) -> int:
    """Runs `batchlab train` or `batchlab sweep` with Hydra's `arguments`; the exit code.

    Raises BadRequest (nothing was started) and EmptyGrid.
    """
    register_plugins()
    shows_only = any(argument.partition("=")[0] in SHOWING for argument in arguments)
    mode = [] if shows_only else ["--multirun", f"hydra.sweeper.word={word}"]
    options, overrides = _sorted_out(arguments)
    with _as_hydra_expects([f"batchlab {word}", *options, *mode, *own_targets(overrides)]):
        try:
            point_task()
        except SystemExit as end:
            if end.code in INTERRUPTED:
                sys.stderr.write(f"continue with: {shlex.join(['batchlab', word, *arguments])}\n")
            return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        except (HydraException, OmegaConfBaseException) as error:
            raise _translated(error) from error
    return 0


def compose(overrides: Sequence[str]) -> RunConfig:
    """The one point that `overrides` describe, without running anything: for Python callers."""
    register_plugins()
    with hydra.initialize(version_base="1.3", config_path=None):
        try:
            return _pinned(from_hydra(hydra.compose("config", own_targets(overrides))))
        except (HydraException, OmegaConfBaseException) as error:
            raise _translated(error) from error


class GridSweeper(Sweeper):
    """Composes every point of the grid before the first one starts."""

    def __init__(self, word: str) -> None:
        self.word = word  # train: exactly one point
        self.launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.master = config
        self.composer = Composer(hydra_context, config)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Ends with SystemExit, which carries the exit code past Hydra, unless it is 0."""
        points = [
            Point(self.composer.config(job), tuple(job))
            for grid in self.composer.grids(arguments)
            for job in self.composer.expanded(own_targets([*grid, *arguments]))
        ]
        if self.word == "train" and len(points) != 1:
            raise BadRequest(
                f"this is a grid of {len(points)} points, and `batchlab train` runs one: use `batchlab sweep ...`"
            )
        code = conduct(points, elsewhere=self._elsewhere())
        if code:
            raise SystemExit(code)

    def _elsewhere(self) -> Any:
        launcher = self.launcher
        if launcher is None or isinstance(launcher, PointLauncher):
            return None
        return lambda points: launcher.launch([list(point.overrides) for point in points], initial_job_idx=0)


class PointLauncher(Launcher):
    """The default: a process per point on this machine, by the supervisor (`batchlab.sweep.supervisor`)."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Nothing to prepare."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        raise BadRequest("hydra/launcher=batchlab goes with hydra/sweeper=batchlab: leave hydra/sweeper out")


class PackagedConfigs(SearchPathPlugin):
    """Puts `configs/` on Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append(provider="batchlab", path=f"file://{config_folder()}")


class Composer:
    """From lists of overrides to checked configurations.

    Hydra takes 0.1 s to compose a point. Which groups are chosen decides the composition; the values are then laid
    over it as Hydra itself does it, so one composition for each choice of groups is enough.
    """

    def __init__(self, context: HydraContext, master: DictConfig) -> None:
        self.loader: Any = context.config_loader  # the implementation: its interface does not know of overrides
        self.master = master
        self.parser = OverridesParser.create(config_loader=context.config_loader)
        self._composed: dict[tuple[str, ...], DictConfig] = {}

    def grids(self, arguments: Sequence[str]) -> list[list[str]]:
        """The `grids` of every experiment that `arguments` choose; one empty grid where there are none."""
        chosen = [o for o in self.parser.parse_overrides(list(arguments)) if o.key_or_group == "experiment"]
        if chosen and chosen[-1].is_sweep_override():
            experiments = [[f"experiment={name}"] for name in chosen[-1].sweep_string_iterator()]
            return [[*o, *grid] for o in experiments for grid in _lists(self.base(tuple(o)).grids)]
        return _lists(self.master.grids)

    def expanded(self, overrides: Sequence[str]) -> Iterator[list[str]]:
        """Every point of the product; of two overrides of one key the later holds. EmptyGrid where there is none."""
        parsed = self.parser.parse_overrides(list(overrides))
        for override in parsed:
            if (
                override.is_sweep_override()
                and override.is_discrete_sweep()
                and not list(override.sweep_string_iterator())
            ):
                raise EmptyGrid(f"the grid is empty: {override.input_line} gives no values")
        (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
        yield from jobs

    def config(self, overrides: Sequence[str]) -> RunConfig:
        """The point that `overrides`, none of them a sweep, describe."""
        parsed = self.parser.parse_overrides(list(overrides))
        groups = [o for o in parsed if self.loader.repository.group_exists(o.key_or_group)]
        composed = copy.deepcopy(self.base(tuple(str(o.input_line) for o in groups)))
        try:
            self.loader._apply_overrides_to_config([o for o in parsed if o not in groups], composed)
        except (HydraException, OmegaConfBaseException) as error:
            raise _translated(error) from error
        return _pinned(from_hydra(composed))

    def base(self, groups: tuple[str, ...]) -> DictConfig:
        """The composition of a choice of groups, without Hydra's own node."""
        if groups not in self._composed:
            composed: DictConfig = self.loader.load_sweep_config(self.master, list(groups))
            HydraConfig.instance().set_config(composed)  # for ${hydra:...} in a user's file
            with open_dict(composed):
                del composed["hydra"]
            self._composed[groups] = composed
        return self._composed[groups]


def own_targets(overrides: Sequence[str]) -> list[str]:
    """`overrides` with the group `own` chosen wherever a `_target_` is named without choosing a group.

    So no key of a built-in model leaks into the user's call; further `model.key=value` are then accepted.
    """
    rewritten = list(overrides)
    for group in GROUPS_OF_OWN:
        keys = [override.partition("=")[0] for override in rewritten]
        names_target = f"{group}._target_" in keys
        if names_target and group not in keys:
            rewritten.insert(0, f"{group}=own")
        if names_target or f"{group}=own" in rewritten:
            rewritten = [f"++{o}" if o.startswith(f"{group}.") and "=" in o else o for o in rewritten]
    return rewritten


def register_plugins() -> None:
    """Makes Hydra know the classes above."""
    plugins, store = Plugins.instance(), ConfigStore.instance()
    if PackagedConfigs not in plugins.discover(SearchPathPlugin):
        plugins.register(PackagedConfigs)
    for group, plugin, keys in (
        ("launcher", PointLauncher, {}),
        ("sweeper", GridSweeper, {"word": "sweep"}),
    ):
        # Hydra 1.3 takes plugins from the package hydra_plugins only, and looks them up by this name. The classes
        # keep their own, by which launchers that pickle find them.
        name = f"hydra_plugins.batchlab.{plugin.__name__}"
        plugins.register(plugin)
        plugins.class_name_to_class[name] = plugin
        store.store(group=f"hydra/{group}", name="batchlab", node={"_target_": name, **keys})


def _sorted_out(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hydra's options and the overrides, apart: its own parser takes no override behind an option's value."""
    overrides = list(get_args_parser().parse_intermixed_args(list(arguments)).overrides)
    options, left = [], list(overrides)
    for argument in arguments:
        if left and argument == left[0]:
            left.pop(0)
        else:
            options.append(argument)
    return options, overrides


@contextlib.contextmanager
def _as_hydra_expects(argv: list[str]) -> Iterator[None]:
    """Hydra reads `sys.argv`, and raises its errors, instead of printing them and ending, only if this is set."""
    before, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = argv, "1"
    try:
        yield
    finally:
        sys.argv = before
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error


def _pinned(config: RunConfig) -> RunConfig:
    """`device=auto` decided, so that the run's identity knows it."""
    return replace(config, device=resolve_device(config.device))


def _lists(grids: Any) -> list[list[str]]:
    """`grids` of a config as plain lists of overrides; one empty list where it has none."""
    plain = OmegaConf.to_container(grids) if OmegaConf.is_list(grids) else grids
    if not isinstance(plain, list) or not all(isinstance(grid, list) for grid in plain):
        raise BadRequest('grids is a list of lists of overrides, such as grids: [["batch_size=8,32"], ["lr=0.1,0.2"]]')
    for entry in (entry for grid in plain for entry in grid):
        if not isinstance(entry, str) or "=" not in entry:
            raise BadRequest(f'grids holds {entry!r}, which is no override: quote what has commas, "batch_size=8,32"')
    return plain or [[]]


def _translated(error: BaseException) -> BadRequest:
    """What a user should know of Hydra's error, in one line."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__
    for link in chain:
        if isinstance(link, BadRequest):
            return link
        if isinstance(link, OverrideParseException):
            return BadRequest(
                f"cannot read '{link.override}': write key=value or key=value,value,... and quote what holds spaces, "
                "commas or brackets, as in \"model.name='a,b'\""
            )
        if isinstance(link, MissingConfigException) and link.missing_cfg_file and link.options is not None:
            group, _, name = link.missing_cfg_file.rpartition("/")
            options = [option for option in link.options if option != "own"]
            near = did_you_mean(name, options) or ": it is one of " + ", ".join(options)
            return BadRequest(f"unknown {group or 'config'} '{name}'{near}")
        if isinstance(link, OmegaConfBaseException) and link.full_key and "not in struct" in str(link):
            near = (
                did_you_mean(link.full_key.split(".")[-1], _known_beside(link)) or ": `batchlab config` lists the keys"
            )
            return BadRequest(f"unknown key '{link.full_key}'{near}")
    return BadRequest(" ".join(str(chain[-1] if str(chain[-1]) else error).split()))


def _known_beside(error: OmegaConfBaseException) -> Sequence[str]:
    parent = error.parent_node
    inside = [str(key) for key in parent] if isinstance(parent, DictConfig) else []
    return inside if "." in str(error.full_key) else knob_names()
