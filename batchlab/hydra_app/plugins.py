"""The classes that Hydra calls: our Sweeper, our Launcher, and the search path of our configs."""

import functools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from batchlab.config.commands import COMMANDS
from batchlab.config_folder import config_folder, folders_of_the_user
from batchlab.errors import BadRequest
from batchlab.host.device_choice import device_of_remote_jobs, resolve_device
from batchlab.hydra_app.allowed_hydra_options import PACKAGED, confine_sources
from batchlab.hydra_app.composing import Composer
from batchlab.sweep.checking import check
from batchlab.sweep.find.finding import PLACEHOLDER_SIZE, find
from batchlab.sweep.points import Point
from batchlab.sweep.run_sweep import run_sweep
from batchlab.sweep.verifying import verify

# The launchers whose jobs run where they are submitted; all others are assumed to use other machines.
ON_THIS_MACHINE = ("PointLauncher", "BasicLauncher", "JoblibLauncher", "LocalLauncher")
NO_SLURM = (
    "hydra/launcher=submitit_slurm needs Slurm (srun was not found): use hydra/launcher=submitit_local, or jobs=2 "
    "without a launcher"
)
WITHOUT_RUNS = {"verify": verify, "check": check}


class GridSweeper(Sweeper):
    """Composes every point of the grid before the first one starts."""

    def __init__(self, command: str) -> None:
        self.command = command  # that is running: train, sweep, verify, check
        self.launcher: Launcher | None = None
        self.remote = False  # whether its jobs run on other machines

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.master = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.remote = COMMANDS[self.command].for_runs and type(self.launcher).__name__ not in ON_THIS_MACHINE
        named = str(config.hydra.runtime.choices["hydra/launcher"])
        device = functools.partial(device_of_remote_jobs, launcher=named) if self.remote else resolve_device
        self.composer = Composer(hydra_context, config, device)

    def sweep(self, arguments: list[str]) -> None:
        """Ends with SystemExit, which carries the exit code past Hydra, unless it is 0."""
        points, sweep = self.composer.grid(arguments)
        if (one_point := COMMANDS[self.command].one_point) and len(points) != 1:
            raise BadRequest(f"this is a grid of {len(points)} points, and `batchlab {self.command}` {one_point}")
        if not sweep.dry_run and type(self.launcher).__name__ == "SlurmLauncher" and shutil.which("srun") is None:
            raise BadRequest(NO_SLURM)
        elsewhere = self._elsewhere()
        command = WITHOUT_RUNS.get(self.command)
        if command is not None and elsewhere is not None:
            raise BadRequest(f"hydra/launcher=... is for runs, and `batchlab {self.command}` makes none: leave it out")
        code = command(points[0]) if command else run_sweep(points, sweep, elsewhere=elsewhere, remote=self.remote)
        if code:
            raise SystemExit(code)

    def _elsewhere(self) -> Any:
        launcher = self.launcher
        if launcher is None or isinstance(launcher, PointLauncher):
            return None

        def launch(points: Sequence[Point]) -> list[str]:
            # Resolved here, as both are part of a run's identity: the job may have another device, and the run that
            # measured a noise scale may change before the job starts.
            jobs = [
                [o for o in point.overrides if o.partition("=")[0].lstrip("+") != "device"]
                + [f"device={point.config.device}"]
                + ([] if point.config.noise_scale is None else [f"noise_scale={point.config.noise_scale}"])
                for point in points
            ]
            returned = launcher.launch(jobs, initial_job_idx=0)
            return [str(job._return_value) for job in returned if job.status is JobStatus.FAILED]

        return launch


class FindSweeper(GridSweeper):
    """`batchlab find`: a search for each combination, instead of a run for each point."""

    def __init__(self, memory_limit: int | None, at_most: int | None) -> None:
        super().__init__("find")
        self.memory_limit, self.at_most = memory_limit, at_most

    def sweep(self, arguments: list[str]) -> None:
        """As in `GridSweeper`; a requested batch size has been refused before."""
        points, _ = self.composer.grid([*arguments, *PLACEHOLDER_SIZE])
        if self._elsewhere() is not None:
            raise BadRequest("hydra/launcher=... is for runs, but find searches on this machine: leave it out")
        code = find(points, memory_limit=self.memory_limit, at_most=self.at_most)
        if code:
            raise SystemExit(code)


class PointLauncher(Launcher):
    """The default: a process per point on this machine, by the supervisor (`batchlab.sweep.processes.supervisor`)."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Nothing to prepare."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        raise BadRequest("hydra/launcher=batchlab needs hydra/sweeper=batchlab: leave out hydra/sweeper")


class ConfigFolders(SearchPathPlugin):
    """Puts the user's config folders on Hydra's search path, then `configs/`: the first file found takes precedence."""

    of_the_user: ClassVar[Sequence[Path]] = ()  # a class variable, as Hydra makes the object

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in self.of_the_user:
            search_path.append(provider="own", path=f"file://{folder}")
        search_path.append(provider=PACKAGED, path=f"file://{config_folder()}")


def register_plugins(config_dir: str | None = None) -> None:
    """Registers the classes above and the folders of the user's configs: `config_dir`, and the lab's own."""
    ConfigFolders.of_the_user = folders_of_the_user(config_dir)
    confine_sources()
    plugins, store = Plugins.instance(), ConfigStore.instance()
    if ConfigFolders not in plugins.discover(SearchPathPlugin):
        plugins.register(ConfigFolders)
    for group, option, plugin, keys in (
        ("launcher", "batchlab", PointLauncher, {}),
        ("sweeper", "batchlab", GridSweeper, {"command": "sweep"}),
        ("sweeper", "find", FindSweeper, {"memory_limit": None, "at_most": None}),
    ):
        # Hydra 1.3 takes plugins from the package hydra_plugins only, and looks them up by this name. The classes
        # keep their own, by which launchers that pickle find them.
        name = f"hydra_plugins.batchlab.{plugin.__name__}"
        plugins.register(plugin)
        plugins.class_name_to_class[name] = plugin
        store.store(group=f"hydra/{group}", name=option, node={"_target_": name, **keys})
