"""Does not import files that need Lightning or transformers, which takes seconds, where long tests are not wanted."""

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """True for those files where `-m` excludes long tests."""
    if "not long" not in config.option.markexpr or not collection_path.name.startswith("test_"):
        return None
    return True if "pytestmark = pytest.mark.long" in collection_path.read_text(encoding="utf-8") else None
