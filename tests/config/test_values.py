"""Plain values written as overrides, read back by Hydra's own parser."""

import math

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from batchlab.config.values import as_override

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.from_regex(r"[\\'., :=/${}\[\]]{0,6}")
NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,5}", fullmatch=True).filter(lambda name: name not in ("true", "null", "inf"))
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner), max_leaves=6)
PARSER = OverridesParser.create()


def read_back(text: str):
    return PARSER.parse_override(f"key={text}").value()


def plain(value):
    """Without Hydra's marks of quotation, and with nan equal to itself."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and math.isnan(value):
        return "nan of a float"
    return getattr(value, "text", value)


@given(VALUES)
def test_hydra_reads_an_override_back_as_the_value_it_was_written_from(value):
    found = plain(read_back(as_override(value)))

    assert found == plain(value)
    assert type(found) is type(plain(value))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.05, "0.05"),
        (1.0, "1.0"),
        (True, "true"),
        (None, "null"),
        ("8", "'8'"),
        ("NaN", "'NaN'"),
        ("../data/my-set", "../data/my-set"),
        ("my_net.Net", "my_net.Net"),
        (".", "."),
        ("..", ".."),
        ("", "''"),
        ("it's", r"'it\'s'"),
        ("C:\\", r"'C:\\'"),
        ("\\\n", "'\\\n'"),
        ({"metric": "val/loss", "sizes": [1, 2]}, "{metric:val/loss,sizes:[1,2]}"),
    ],
)
def test_text_has_quotes_only_if_hydra_would_read_something_else(value, text):
    assert as_override(value) == text
