"""Files of published image sets: where they are, how to download them, and messages if they are wrong."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from batchlab import BadRequest

Images = tuple[Tensor, Tensor]  # (examples, channels, height, width) uint8 and their labels (examples,) int64


def located(folder: str) -> Path:
    """The folder of the data sets, relative to the current one."""
    if not isinstance(folder, str) or not folder:
        raise BadRequest(f"data.folder={folder} is invalid: give the folder of the data sets, such as data.folder=data")
    return Path(folder).expanduser()


def fetch_if_requested(name: str, download: bool, there: bool, how: Callable[[], object]) -> None:
    """Calls `how`, which downloads data set `name`, if that was requested and files are missing."""
    if not isinstance(download, bool):
        raise BadRequest(f"data.download={download} is invalid: use true or false")
    if there or not download:
        return
    try:
        how()
    # From the network, the disk, an archive, a checksum: libraries raise all kinds of errors.
    except Exception as error:
        raise BadRequest(
            f"data.download=true could not download {name}: {in_a_line(error)}; without a network, download the files "
            "elsewhere and put them into the folder that a run without data.download names"
        ) from None


def missing(name: str, path: Path, files: Sequence[str], source: str) -> BadRequest:
    """The error if a file of data set `name` is missing: which `files` to put where, and their `source`."""
    return BadRequest(
        f"data={name} needs {path}, which does not exist: add data.download=true if there is a network, or put "
        f"{', '.join(files)} there ({source}); data.folder=... changes the start of that path"
    )


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Around a library that reads `path`: turns any error into a one-line message that names the file."""
    try:
        yield
    except BadRequest:
        raise
    # For a damaged file libraries raise all kinds of errors.
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise BadRequest(f"{path} cannot be read: {error.strerror}") from None
        raise damaged(path, f"cannot be read as {kind} ({in_a_line(error)})") from None


def checked(path: Path, images: Tensor, labels: Tensor, classes: int) -> Images:
    """Images and labels, if each image has a label and all are below `classes`; `path` is the labels' file."""
    if not len(labels) or len(images) != len(labels):
        raise damaged(path, f"has {len(labels)} labels for {len(images)} images")
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        found = f"{int(labels.min())} to {int(labels.max())}"
        raise damaged(path, f"has labels {found}, but they must be 0 to {classes - 1}")
    return images, labels


def check_published(path: Path, md5: str, unzipped: Path | None = None) -> None:
    """BadRequest if a file, `unzipped` or as it is, differs from the published one.

    MD5 because it is published with these sets: it protects against accidents, not against an adversary.
    """
    from torchvision.datasets.utils import check_integrity

    if not check_integrity(unzipped or path, md5):
        raise damaged(path, "has as many examples as the published file, but another checksum")


def damaged(path: Path, why: str) -> BadRequest:
    """The error for a file with wrong content."""
    return BadRequest(
        f"{path} {why}: it is incomplete, changed, or another file; delete it and download it again "
        "(with data.download=true if there is a network)"
    )


def in_a_line(error: Exception) -> str:
    """The error's message, without unprintable characters from a damaged file."""
    text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return "".join(character if character.isprintable() else "?" for character in text)
