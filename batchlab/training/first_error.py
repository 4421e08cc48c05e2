"""Clean-up that does not hide the original error."""

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def finally_do(clean: Callable[[], object]) -> Iterator[None]:
    """Calls `clean` at the end, whatever happened inside; if both fail, the first error is raised.

    With `finally` it would be the last. After an error that breaks the CUDA context every later call fails, so
    restoring a buffer or a generator would replace the error that says what went wrong.
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
