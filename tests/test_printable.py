"""Names in a sentence."""

import shlex

import pytest

from batchlab.printable import command_line, listed


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


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["batchlab", "sweep", "runs_dir=.", "model.name=a"], "batchlab sweep runs_dir=. model.name=a"),
        (["runs_dir='my runs'"], "\"runs_dir='my runs'\""),
        (["model.sizes=[1,2]"], "'model.sizes=[1,2]'"),
        (["a='$HOME'"], None),
        (["a='!x'", "b='\"'", "c='`d`'", "e='\\'"], None),
    ],
)
def test_a_command_is_read_back_by_a_shell_and_has_no_more_quotes_than_that_needs(
    words: list[str], line: str | None
) -> None:
    assert shlex.split(command_line(words)) == words
    assert line is None or command_line(words) == line
    if line is None:
        assert command_line(words) == shlex.join(words)
