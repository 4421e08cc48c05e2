"""CIFAR's python form without what a pickle can do: a file of data that could run any program when it is read."""

import io
import pickle
from typing import Any

import numpy as np


class _ArraysOnly(pickle.Unpickler):
    """Makes plain containers, numbers, strings and NumPy arrays, and refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        made = _ALLOWED.get((module, name))
        if made is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, and data needs no such thing")
        return made


def _bytes_of(text: str, encoding: str) -> bytes:
    """What `_codecs.encode` is in a pickle of bytes by protocol 2; that one takes any codec, and this one is for it."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding}, and bytes need latin1")
    return text.encode("latin1")


# By its value: NumPy 2 moved it to numpy._core, and files of before ask for numpy.core.
_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("_codecs", "encode"): _bytes_of,
}


def unpickled(content: bytes) -> Any:
    """What `content` holds; `pickle.UnpicklingError` where it is no pickle of such, however that shows."""
    try:
        return _ArraysOnly(io.BytesIO(content), encoding="latin1").load()  # written by Python 2
    except pickle.UnpicklingError:
        raise
    # A pickle is a program: a damaged one fails wherever its instructions lead it, at any kind of error.
    except Exception as error:
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from None
