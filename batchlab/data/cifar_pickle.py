"""CIFAR's python form without what a pickle can do: a file of data that could run any program when it is read."""

import io
import math
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Kind:
    """What stands in for a `numpy.dtype` while a pickle is read."""

    def __init__(self, kind: str, align: object = False, copy: object = True) -> None:
        self.kind = kind

    def __setstate__(self, state: object) -> None:
        """Of byte order and alignment, which unsigned bytes have not."""


class ByteArray:
    """What stands in for a `numpy.ndarray`: NumPy's own takes more from a pickle than its code is proof against."""

    values: NDArray[np.uint8] | None = None

    def __setstate__(self, state: tuple[object, Sequence[int], Kind, bool, str | bytes]) -> None:
        _, shape, kind, by_columns, content = state
        self.values = _array(content.encode("latin1") if isinstance(content, str) else content, kind, shape, by_columns)


def _array(content: bytes, kind: Kind, shape: Sequence[int], by_columns: bool) -> NDArray[np.uint8]:
    if kind.kind not in ("u1", "|u1", "uint8"):
        raise pickle.UnpicklingError(f"it holds an array of {str(kind.kind)[:20]}, and images are unsigned bytes, u1")
    if len(content) != math.prod(shape):
        raise pickle.UnpicklingError(f"it holds an array of {len(content)} bytes and says {str(shape)[:60]}")
    return np.frombuffer(content, dtype=np.uint8).reshape(tuple(shape), order="F" if by_columns else "C")


def _begun(*_: object) -> ByteArray:
    """In place of NumPy's `_reconstruct`: the array is filled by its state."""
    return ByteArray()


def _from_buffer(content: bytes, kind: Kind, shape: Sequence[int], order: str) -> ByteArray:
    """In place of NumPy's `_frombuffer`, of protocol 5."""
    made = ByteArray()
    made.values = _array(content, kind, shape, order == "F")
    return made


def _bytes_of(text: str, encoding: str) -> bytes:
    """What `_codecs.encode` is in a pickle of bytes by protocol 2; that one takes any codec, and this one is for it."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {str(encoding)[:20]}, and bytes need latin1")
    return text.encode("latin1")


# The names that NumPy 1 and 2 write, and nothing that they mean outside.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): ByteArray,
    ("numpy", "dtype"): Kind,
    ("numpy.core.multiarray", "_reconstruct"): _begun,
    ("numpy._core.multiarray", "_reconstruct"): _begun,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _bytes_of,
}


# Not the one in C, which makes room for as many remembered values as a damaged byte says, 60 GB for one file in 100.
class _ArraysOnly(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        made = _ALLOWED.get((module, name))
        if made is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, and data needs no such thing")
        return made


def unpickled(content: bytes) -> Any:
    """What `content` holds: containers, numbers, strings and `ByteArray`s, for arrays of unsigned bytes.

    `pickle.UnpicklingError` where it asks for anything else or is damaged, however that shows.
    """
    try:
        return _ArraysOnly(io.BytesIO(content), encoding="latin1").load()  # written by Python 2
    except pickle.UnpicklingError:
        raise
    # A pickle is a program: a damaged one fails wherever its instructions lead it, at any kind of error.
    except Exception as error:
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from None
