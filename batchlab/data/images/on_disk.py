"""Published data sets as files: where they lie, how they come there, and whether they are what was published."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from batchlab import BadRequest


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


def read_bytes(path: Path) -> bytes:
    """All of a file; BadRequest where the system refuses."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadRequest(f"{path} cannot be read: {error.strerror or error}") from None


def damaged(path: Path, why: str) -> BadRequest:
    """The refusal of a file that is not what it should be."""
    return BadRequest(
        f"{path} {why}: it was cut off, changed, or is another file; delete it, and fetch it again "
        "(data.download=true does where there is a network)"
    )


def check_published(path: Path, content: bytes, md5: str) -> None:
    """BadRequest where `content` is not byte for byte what was published.

    MD5 because that is what was published with these sets: against accidents, not against an adversary.
    """
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise damaged(path, "has the size of the published file and not its checksum")


def in_a_line(error: Exception) -> str:
    """What `error` says, without what a damaged file may have put into it."""
    said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return "".join(character if character.isprintable() else "?" for character in said)
