"""The settings of Hydra that a command line may change: its launcher. Others would write files anywhere."""

import itertools
import re
from collections.abc import Iterable
from typing import Any

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.core_plugins.importlib_resources_config_source import ImportlibResourcesConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.override_parser.types import Override, QuotedString, ValueType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import DictConfig, ListConfig, OmegaConf

from batchlab.config_folder import config_folder
from batchlab.errors import BadRequest
from batchlab.hydra_app.explaining import unreadable

ALLOWED = re.compile(r"hydra\.(launcher(\..+)?|verbose)")
INSTEAD = (
    (r"run\b|sweep\b|output_subdir|job\.chdir", "set where runs are kept by runs_dir=... and study=..."),
    (r"\w+_logging|callbacks", "each run's output is in its worker.log, and hydra.verbose=true shows Hydra's own"),
    (r"searchpath", "use --config-dir DIR to add configs of your own"),
    (r"sweeper", "give the values of the grid with commas or range(...)"),
    (r"mode", "`batchlab train` runs one point, `batchlab sweep` every point of a grid"),
)
PACKAGED = "batchlab"  # the provider of the shipped configs
MOST_OPTIONS = 1000  # options of a group that are checked
OTHERWISE = "of Hydra's own settings only hydra/launcher=..., hydra.launcher.key=... and hydra.verbose=... may be set"


def check_overrides(overrides: Iterable[Override]) -> None:
    """BadRequest for an override of a Hydra setting that users may not change."""
    groups = {path.name for path in config_folder().iterdir() if path.is_dir()}
    for override in overrides:
        line = str(override.input_line)
        if not override.key_or_group:
            raise unreadable(line)
        if override.key_or_group in groups or "/" in override.key_or_group:
            _check_choice(override, line)
        key = override.key_or_group.replace("/", ".")
        package = str(override.package or "")
        if any(part.split(".")[0] == "hydra" for part in package.split(":")):
            raise BadRequest(f"{line} is invalid: a group must not be put into Hydra's own settings; leave out @...")
        if key.split(".")[0] != "hydra":
            continue
        if not ALLOWED.fullmatch(key):
            raise BadRequest(f"{line} is invalid: {_instead(key)}")
        if "_target_" in line:
            raise BadRequest(f"{line} is invalid: a launcher is chosen only by its name, hydra/launcher=NAME")


def _check_choice(override: Override, line: str) -> None:
    """BadRequest where the choice of a group is not a name: Hydra would crash on a number."""
    if override.is_delete() or override.value_type is ValueType.GLOB_CHOICE_SWEEP:
        return
    if override.is_discrete_sweep():
        values: list[Any] = list(itertools.islice(override.sweep_iterator(), MOST_OPTIONS))
    else:
        values = [override.value()]
    if not all(isinstance(value, str | QuotedString | list | dict) for value in values):
        raise BadRequest(f"{line} is invalid: it must be one of the names that `batchlab config` lists")


def _instead(key: str) -> str:
    setting = key.removeprefix("hydra").lstrip(".")
    return next((text for start, text in INSTEAD if re.match(start, setting)), OTHERWISE)


def stays_inside(config_path: str) -> bool:
    """Whether the name of a config, such as `model/mlp`, can only lie below the folder in which it is searched."""
    parts = config_path.split("/") if config_path else []
    return all(part.isprintable() and "\\" not in part and part not in ("", ".", "..") for part in parts)


class _StaysInside(ConfigSource):
    """Finds nothing outside its folder: Hydra 1.3 opens `model=../../x`, wherever that is."""

    def is_group(self, config_path: str) -> bool:
        return stays_inside(config_path) and bool(super().is_group(config_path))  # type: ignore[safe-super]

    def is_config(self, config_path: str) -> bool:
        return stays_inside(config_path) and bool(super().is_config(config_path))  # type: ignore[safe-super]

    def load_config(self, config_path: str) -> ConfigResult:
        found = super().load_config(config_path)  # type: ignore[safe-super]
        if self.provider not in ("hydra", PACKAGED):
            _check_file(config_path, found)
        return found


class FolderSource(_StaysInside, FileConfigSource):
    """`file://`: `configs/`, and the user's `--config-dir`."""


class PackageSource(_StaysInside, ImportlibResourcesConfigSource):
    """`pkg://`: Hydra's own configs, its launchers among them."""


# A job of another package's launcher gets this registry and registers Hydra's own classes again: Hydra
# compares the names, refuses different ones, and keeps the registered classes.
FolderSource.__name__, PackageSource.__name__ = FileConfigSource.__name__, ImportlibResourcesConfigSource.__name__


def confine_sources() -> None:
    """Makes Hydra search configs through the two classes above."""
    Plugins.instance()  # registers Hydra's own classes first, which the public interface cannot replace
    types = SourcesRegistry.instance().types
    types["file"], types["pkg"] = FolderSource, PackageSource


def _check_file(config_path: str, found: ConfigResult) -> None:
    """BadRequest for a file (such as somebody else's experiment) that sets what no override may set."""
    config, package = found.config, found.header.get("package") or config_path.rpartition("/")[0].replace("/", ".")
    package = package.removeprefix("_global_").lstrip(".")
    if not isinstance(config, DictConfig):
        return
    for key in _settings(config, package):
        if key.split(".")[0] == "hydra" and not ALLOWED.fullmatch(key):
            raise BadRequest(f"the file {config_path}.yaml sets {key}: {_instead(key)}")


def _settings(config: DictConfig, package: str) -> Iterable[str]:
    """The dotted keys of Hydra's node that a file sets: by its values, its defaults or its package."""
    listed = config._get_node("defaults")
    for entry in listed._iter_ex(resolve=False) if isinstance(listed, ListConfig) else ():
        for group in entry if isinstance(entry, DictConfig) else ():
            yield str(group).split()[-1].lstrip("/").replace("/", ".").partition("@")[0]
            yield str(group).partition("@")[2]
    values: Any = OmegaConf.to_container(config, resolve=False)
    values.pop("defaults", None)
    inner = values if not package else {package: values}
    for key, value in inner.items():
        name = str(key)
        if name == "hydra" and isinstance(value, dict):
            yield from (f"hydra.{setting}" for setting in value)
        elif name.split(".")[0] == "hydra":
            yield name
