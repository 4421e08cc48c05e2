"""Where configs lie: the shipped ones, inside the installed package or beside it in a checkout, and the user's."""

from importlib.resources import files
from pathlib import Path

from batchlab.errors import BadRequest
from batchlab.printable import printable

LAB = Path("configs")  # of a folder that `batchlab init` made
LAB_DEFAULTS = Path("lab", "default.yaml")  # which is known by it


def config_folder() -> Path:
    """The folder of the shipped configs: the wheel's `batchlab/configs`, else the checkout's `configs`."""
    package = Path(str(files("batchlab")))
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def folders_of_the_user(config_dir: str | None) -> list[Path]:
    """Whose files hold over the shipped ones, the first of them first: `--config-dir`, and the lab one stands in.

    BadRequest where a folder is none, or has a `config.yaml`, which would replace every default there is.
    """
    if config_dir is not None and not Path(config_dir).is_dir():
        raise BadRequest(f"--config-dir {printable(config_dir)}: there is no such folder")
    found = [Path(config_dir).absolute()] if config_dir is not None else []
    if (LAB / LAB_DEFAULTS).is_file() and LAB.absolute() not in found:
        found.append(LAB.absolute())
    for folder in found:
        if (folder / "config.yaml").exists():
            raise BadRequest(
                f"{printable(folder / 'config.yaml')} cannot be: batchlab's own config.yaml is not replaced as a "
                f"whole; put the defaults that you want into {printable(folder / LAB_DEFAULTS)}"
            )
    return found
