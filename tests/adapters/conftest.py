"""Does not import files that need Lightning or transformers, which takes seconds, where long tests are not wanted."""

from pathlib import Path

import pytest

QUICK = ("test_not_installed.py",)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """True for those files where `-m` excludes long tests."""
    is_long = collection_path.name.startswith("test_") and collection_path.name not in QUICK
    return True if is_long and "not long" in config.option.markexpr else None
