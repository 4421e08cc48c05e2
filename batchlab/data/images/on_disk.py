"""Files of published image sets: where they lie, how they come there, and what is said where they are wrong."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from batchlab import BadRequest

Images = tuple[Tensor, Tensor]  # (examples, channels, height, width) uint8 and their labels (examples,) int64


def located(folder: str) -> Path:
    """The folder that data sets lie in, from where the user stands."""
    if not isinstance(folder, str) or not folder:
        raise BadRequest(f"data.folder={folder} cannot be: it is the folder that data sets lie in, data.folder=data")
    return Path(folder).expanduser()


def fetch_if_asked(name: str, download: bool, there: bool, how: Callable[[], object]) -> None:
    """Calls `how`, which downloads data set `name`, where that was asked for and the files are not all there."""
    if not isinstance(download, bool):
        raise BadRequest(f"data.download={download} cannot be: it is true or false")
    if there or not download:
        return
    try:
        how()
    # Of the network, the disk, an archive, a checksum: libraries raise all kinds, and all mean that it is not there.
    except Exception as error:
        raise BadRequest(
            f"data.download=true could not fetch {name}: {in_a_line(error)}; where there is no network, fetch the "
            "files elsewhere and put them where a run without data.download says"
        ) from None


def missing(name: str, path: Path, files: Sequence[str], source: str) -> BadRequest:
    """The refusal where a file of data set `name` is not there: which `files` to put where, and their `source`."""
    return BadRequest(
        f"data={name} needs {path}, which is not there: add data.download=true where there is a network, or put "
        f"{', '.join(files)} there ({source}), or say where they are with data.folder=..."
    )


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Around a library that reads `path`: whatever it raises is one line that names the file."""
    try:
        yield
    except BadRequest:
        raise
    # Libraries fail at whatever the bytes of a damaged file lead to, with all kinds of errors.
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise BadRequest(f"{path} cannot be read: {error.strerror}") from None
        raise damaged(path, f"cannot be read as {kind} ({in_a_line(error)})") from None


def checked(path: Path, images: Tensor, labels: Tensor, classes: int) -> Images:
    """Both, where there is a label for each image and all are of the `classes`; `path` is the labels' file."""
    if not len(labels) or len(images) != len(labels):
        raise damaged(path, f"has {len(labels)} labels for {len(images)} images")
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        said = f"has labels {int(labels.min())} to {int(labels.max())}, and they are 0 to {classes - 1}"
        raise damaged(path, said)
    return images, labels


def check_published(path: Path, md5: str, unzipped: Path | None = None) -> None:
    """BadRequest where a file, `unzipped` or as it is, is not byte for byte what was published.

    MD5 because that is what was published with these sets: against accidents, not against an adversary.
    """
    from torchvision.datasets.utils import check_integrity

    if not check_integrity(unzipped or path, md5):
        raise damaged(path, "has as many examples as the published file, and not its checksum")


def damaged(path: Path, why: str) -> BadRequest:
    """The refusal of a file that is not what it should be."""
    return BadRequest(
        f"{path} {why}: it was cut off, changed, or is another file; delete it, and fetch it again "
        "(data.download=true does where there is a network)"
    )


def in_a_line(error: Exception) -> str:
    """What `error` says, without what a damaged file may have put into it."""
    said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return "".join(character if character.isprintable() else "?" for character in said)
