"""Where `configs/` lies: inside the installed package, or beside it in a checkout."""

from importlib.resources import files
from pathlib import Path


def config_folder() -> Path:
    """The folder of the shipped configs: the wheel's `batchlab/configs`, else the checkout's `configs`."""
    package = Path(str(files("batchlab")))
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"
