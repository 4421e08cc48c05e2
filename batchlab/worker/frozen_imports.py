"""Importing much at once, in a process that children are forked from."""

import atexit
import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def frozen_imports() -> Iterator[None]:
    """Keeps the garbage collector off during the imports inside, and freezes what exists afterwards.

    Imports create hundreds of thousands of objects that stay, and the collector would visit them again and again. Of
    frozen objects the collector of a forked child visits none, so the child need not copy their memory pages.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # otherwise Triton reports leaks at exit
        if was_enabled:
            gc.enable()
