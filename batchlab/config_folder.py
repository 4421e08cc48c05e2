"""The folders of configs: the shipped ones, in the installed package or next to it in a checkout, and the user's."""

from importlib.resources import files
from pathlib import Path

from batchlab.errors import BadRequest
from batchlab.printable import printable

LAB = Path("configs")  # in a folder that `batchlab init` made
LAB_DEFAULTS = Path("lab", "default.yaml")  # the file that marks a lab


def config_folder() -> Path:
    """The folder of the shipped configs: the wheel's `batchlab/configs`, else the checkout's `configs`."""
    package = Path(str(files("batchlab")))
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def folders_of_the_user(config_dir: str | None) -> list[Path]:
    """The folders whose files take precedence over the shipped ones, highest first: `--config-dir`, the current lab.

    BadRequest where a folder does not exist, or has a `config.yaml`, which would replace every default.
    """
    if config_dir is not None and not Path(config_dir).is_dir():
        raise BadRequest(f"--config-dir {printable(config_dir)}: there is no such folder")
    found = [Path(config_dir).absolute()] if config_dir is not None else []
    if (LAB / LAB_DEFAULTS).is_file() and LAB.absolute() not in found:
        found.append(LAB.absolute())
    for folder in found:
        if (folder / "config.yaml").exists():
            raise BadRequest(
                f"{printable(folder / 'config.yaml')} is invalid: a file of your own must not replace batchlab's "
                f"config.yaml; put the defaults that you want into {printable(folder / LAB_DEFAULTS)}"
            )
    return found
