"""Text for a language model, byte by byte: a user's file or folder, or Python's own documentation."""

import dataclasses
import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from batchlab import BadRequest, Task

BYTES = 256  # the vocabulary of every text, so all texts use the same model
HELD_BYTES = 256 * 2**20  # 4 GiB as integers, the most that batchlab keeps of a Dataset; larger ones are streamed
USED = {"train": 64_000, "val": 16_000}  # default bytes of Python's documentation: a point takes a minute
LOOKED_AT = 8192  # bytes at each file's start, checked to see whether it is text


def load(
    path: str | None = None,
    context: int = 64,
    pattern: str = "*",
    train_size: int | None = None,
    val_size: int | None = None,
    val_share: float = 0.1,
) -> Task:
    """Windows of `context` bytes, and for each byte the next one; the loss is per byte, in nats.

    `path` is a file, or a folder whose files that match `pattern` are read in the order of their names, without
    hidden ones. null is `documentation`. The last `val_share` of the bytes are for validation: no byte is in both
    parts. `train_size` and `val_size` keep the first windows of each part; null keeps all of a user's text, and the
    first `USED` bytes of Python's.
    """
    _check(context=context, train_size=train_size, val_size=val_size, val_share=val_share)
    text: Text = InMemory(documentation()) if path is None else Files(_files(path, pattern))
    split = len(text) - math.ceil(len(text) * val_share)
    parts = {"train": (0, split, train_size), "val": (split, len(text), val_size)}
    sets: dict[str, Any] = {}
    for name, (start, stop, size) in parts.items():
        if path is None and size is None:
            stop = min(stop, start + USED[name] + 1)
        sets[name] = _windows(name, text, start, stop, size, context=context)
    accuracy: dict[str, Any] = {
        "metrics": lambda outputs, batch: {"accuracy": (outputs.argmax(dim=-1) == batch[1]).flatten().float()},
        "higher_is_better": {"accuracy": True},
        "model_args": {"vocabulary": BYTES, "context": context},
    }
    one = torch.zeros(context + 1, dtype=torch.int64)  # the sets are replaced below
    task = Task.language_model(one, one, context, **accuracy)
    return dataclasses.replace(task, **sets)


def documentation() -> bytes:
    """The language reference that `help()` shows, which comes with Python and depends on its version.

    Chapters repeat each other's paragraphs: repetitions are left out, or validation would contain training text.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise BadRequest(
            "data=text reads Python's own documentation, but this Python has none (pydoc_data): give your own text, "
            "data.path=my.txt, or a folder of texts"
        ) from None
    paragraphs = (part.strip("\n") for name in sorted(topics) for part in topics[name].split("\n\n"))
    return "\n\n".join(dict.fromkeys(filter(None, paragraphs))).encode()


class InMemory:
    """A text in memory."""

    def __init__(self, content: bytes) -> None:
        self.content = np.frombuffer(content, dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.content)

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Bytes `start` to `stop`."""
        return self.content[start:stop]


class Files:
    """A text made of concatenated files, read on demand."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        # 0, then the end of each file in the text.
        self.ends = (0, *accumulate(path.stat().st_size for path in self.paths))

    def __len__(self) -> int:
        return self.ends[-1]

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Bytes `start` to `stop`; BadRequest if a file has become shorter."""
        pieces = []
        while start < stop:
            at = bisect_right(self.ends, start) - 1
            count = min(stop, self.ends[at + 1]) - start
            piece = np.fromfile(self.paths[at], dtype=np.uint8, count=count, offset=start - self.ends[at])
            if len(piece) < count:
                raise BadRequest(f"{self.paths[at]} became shorter while it was read: do not change it during the runs")
            pieces.append(piece)
            start += count
        return np.concatenate(pieces) if pieces else np.empty(0, dtype=np.uint8)


Text = InMemory | Files


class Windows(Dataset[tuple[Tensor, Tensor]]):
    """`count` windows of a text from `start`, side by side: inputs and next bytes, (context,) each."""

    def __init__(self, text: Text, start: int, count: int, context: int) -> None:
        self.text, self.start, self.count, self.context = text, start, count, context

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        start = self.start + position * self.context
        window = torch.from_numpy(self.text.read(start, start + self.context + 1).astype(np.int64))
        return window[:-1], window[1:]


def _windows(name: str, text: Text, start: int, stop: int, size: int | None, *, context: int) -> Any:
    """`size` windows (None: all) of the bytes `start` to `stop`; as tensors if they are small enough."""
    count = max(0, stop - start - 1) // context
    wanted = size or 1
    if count < wanted:
        instead = ""
        if count:
            instead = f", or data.{name}_size={count}"
        elif stop - start > 1:
            instead = f", or data.context={stop - start - 1}"
        raise BadRequest(
            f"the text is too short: {stop - start:,} of its {len(text):,} bytes are for {name}, but {wanted:,} "
            f"windows of context={context} and the next byte need {wanted * context + 1:,}: use a longer "
            f"text{instead}"
        )
    count = count if size is None else size
    if count * context > HELD_BYTES:
        return Windows(text, start, count, context)
    tokens = torch.from_numpy(text.read(start, start + count * context + 1).astype(np.int64))
    return tokens[:-1].view(count, context), tokens[1:].view(count, context)


def _files(path: str, pattern: str) -> list[Path]:
    """The files of a text in the order of their names; BadRequest if there are none, or one is not text."""
    place = Path(str(path))
    if not place.exists():
        raise BadRequest(f"data.path={path} does not exist: give a text file or folder, relative to {Path.cwd()}")
    found = [place]
    if place.is_dir():
        try:
            below = [file for file in sorted(place.rglob(str(pattern or "/"))) if file.is_file()]
        except (ValueError, NotImplementedError):  # an empty pattern, or one that begins with a slash
            raise BadRequest(f"data.pattern={pattern} is invalid: give a pattern of names, such as *.txt") from None
        found = [file for file in below if not any(p.startswith(".") for p in file.relative_to(place).parts)]
        if not found:
            raise BadRequest(f"data.path={path} has no file that matches data.pattern={pattern}: put text files there")
    for file in found:
        try:
            with file.open("rb") as opened:
                start = opened.read(LOOKED_AT)
        except OSError as error:
            raise BadRequest(f"{file} cannot be read: {error.strerror or error}") from None
        if b"\0" in start:
            raise BadRequest(
                f"{file} is not text (it has a byte 0): use text files only, in a folder with data.pattern='*.txt'"
            )
    return found


def _check(**options: Any) -> None:
    for name in ("context", "train_size", "val_size"):
        value = options[name]
        if value is None and name != "context":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            unit = "bytes" if name == "context" else "windows"
            raise BadRequest(
                f"data.{name}={value} is invalid: give a whole number of {unit}, such as data.{name}=64"
                + ("" if name == "context" else ", or null for all")
            )
    share = options["val_share"]
    if not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share < 1:
        raise BadRequest(
            f"data.val_share={share} is invalid: give the share of the text kept for validation, between 0 and 1, "
            "such as data.val_share=0.1"
        )
