"""Names in a sentence."""

import pytest

from batchlab.printable import listed


@pytest.mark.parametrize(
    ("names", "most", "said"),
    [
        ([], None, ""),
        (["a"], None, "a"),
        ([8, 32], None, "8 and 32"),
        (["a", "b", "c"], None, "a, b and c"),
        (["a", "b", "c"], 3, "a, b and c"),
        (["a", "b", "c", "d"], 3, "a, b, c and 1 more"),
        (range(2002), 1, "0 and 2,001 more"),
    ],
)
def test_names_are_listed_and_those_beyond_the_most_are_counted(
    names: list[object], most: int | None, said: str
) -> None:
    assert listed(names, most) == said
    assert listed(iter(names), most) == said


def test_a_list_without_an_and_has_one_before_the_count_alone() -> None:
    assert listed("abc", 3, separator="; ", last="; ") == "a; b; c"
    assert listed("abcd", 3, separator="; ", last="; ") == "a; b; c and 1 more"
