"""Whether the packages that the adapters need are installed."""

from importlib.util import find_spec

from batchlab.errors import BadRequest

PACKAGES = {"lightning": "lightning", "pytorch_lightning": "pytorch-lightning", "transformers": "transformers"}


def missing(*names: str) -> str | None:
    """How to install the first of the packages, by the names they are imported as; None if one of them is there."""
    if any(find_spec(name) is not None for name in names):
        return None
    return f"pip install {PACKAGES[names[0]]}"


def require(who: str, what: str, *names: str) -> None:
    """BadRequest if none of the packages is installed."""
    if (command := missing(*names)) is not None:
        raise BadRequest(f"{who} needs {what}, which is not installed here: {command}")


def how_to_install(error: BaseException) -> str:
    """The command to be appended to the message of a ModuleNotFoundError about one of the packages; else empty."""
    name = (getattr(error, "name", None) or "").partition(".")[0]
    known = isinstance(error, ModuleNotFoundError) and name in PACKAGES
    return f": pip install {PACKAGES[name]}" if known else ""
