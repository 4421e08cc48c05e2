"""Clean-up that does not hide the error it cleans up after."""

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def finally_do(clean: Callable[[], object]) -> Iterator[None]:
    """Calls `clean` at the end, whatever happened inside; where both fail, the first error is the one that is raised.

    With `finally` it would be the last. A CUDA context that is broken once fails at every call after it, so putting
    back a buffer or a generator would replace the error that says what went wrong.
    """
    try:
        yield
    except BaseException as error:
        try:
            clean()
        except Exception as second:
            error.add_note(f"Cleaning up after it failed as well: {type(second).__name__}: {second}")
        raise
    clean()
