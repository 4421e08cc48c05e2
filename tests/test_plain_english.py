"""Messages, docstrings, comments and the pages use the standard terms: a table of what to write instead.

A regular expression knows the worst words only. Each rule is run on this repository, where it must find nothing, and on
a fabricated bad tree, where it must find the word in every kind of file.
"""

import ast
import functools
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import ROOT

# pattern (a space is any white space) -> what to write instead, and a bad example
RULES = {
    r"knobs?|KNOB=VALUE": ("option", "Every knob is checked."),
    r"(?:the|a|its|at|per|each|one|this|that|of|best|peak|fixed|tuned|same|other|new|several|three|four|five|small|large|"
    r"smaller|larger|smallest|largest|higher|lower|right|other|whose) rates?(?!_| of (?:examples|steps|change))": (
        "learning rate",
        "The best rate grows with the batch size.",
    ),
    r"number formats?": ("precision, dtype", "It compares number formats."),
    r"trainable numbers": ("trainable parameters", "Net has 765 trainable numbers."),
    r"rows? of examples": ("data order", "Its place in the row of examples counts."),
    r"for want of": ("because of a lack of", "It stopped for want of memory."),
    r"cannot be told (?:from|apart)|(?:cannot|can not) tell \S+ from": (
        "is statistically indistinguishable from, is not shown to differ from",
        "It cannot be told from 64.",
    ),
    r"tells? no (?:spread|interval)s?": ("gives no error bars", "One seed tells no spread."),
    r"mend(?:s|ed|ing)?": ("fix", "It says how to mend it."),
    r"(?:go|goes|going|gone|went) on(?! (?:the|a|an|which|each|it|one|this|that)\b)": (
        "resume, continue",
        "An unfinished one goes on from its checkpoint.",
    ),
    r"seen red": ("shown to fail", "Each test was seen red."),
    r"(?:laid|lies|lay) over": ("merged into", "Values are laid over the composition."),
    r"h(?:o|e)lds? over": ("take precedence over", "The first file holds over the others."),
    r"one after the other": ("sequentially, one at a time", "The points run one after the other."),
    r"stood|stands?(?! for\b|-)": ("is stored, is shown, remains", "The result stands in the table."),
    r"(?:that|what) came with": ("added in", "An option that came with version 2."),
    r"(?-i:WORD)|unknown word|(?:the|each|every|of) words? (?:is missing|are|comes first|of (?:a|the) command line)|"
    r"words of (?:a|the) command line": ("command, argument", "The words are train, sweep, list."),
    r"(?:what|as) (?:\w+ )?(?:was|were|is|are) (?:asked|told|said)|(?:was|were|is|are) asked for|as asked": (
        "requested, reported",
        "It says what was asked for.",
    ),
    r"(?:its|an|old|final|keep|keeps) answers?(?: already)?(?= (?:already|is|are|was|when)\b|[.,:;)]| \()": (
        "final result, result",
        "A point that has its answer is not trained again.",
    ),
}


@functools.cache
def texts(root: Path) -> tuple[tuple[str, int, str], ...]:
    """Every text to be read: file, first line, and the text."""
    return tuple(_texts(root))


def _texts(root: Path) -> Iterator[tuple[str, int, str]]:
    for path in (*sorted((root / "batchlab").rglob("*.py")), *sorted((root / "scripts").glob("*"))):
        if path.is_file():
            found = (*literals(path), *comments(path)) if is_python(path) else [(1, path.read_text(encoding="utf-8"))]
            yield from ((str(path.relative_to(root)), line, text) for line, text in found)
    for folder in (root / "configs", root / "batchlab" / "cli" / "lab", root / "docs"):
        for path in sorted(folder.rglob("*.yaml")):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if comment := re.search(r"(?:^|\s)#(.*)", line):
                    yield str(path.relative_to(root)), number, comment[1]
    for path in (root / "README.md", *sorted(root.glob("docs/*.md")), *sorted(root.glob("batchlab/cli/lab/*.*"))):
        yield str(path.relative_to(root)), 1, path.read_text(encoding="utf-8")


def is_python(path: Path) -> bool:
    """Whether it is a module, or a script that Python runs."""
    with path.open(encoding="utf-8") as file:
        first = file.readline()
    return path.suffix == ".py" or (first.startswith("#!/usr/bin/env") and "python" in first)


def literals(path: Path) -> Iterator[tuple[int, str]]:
    """The string literals of a module, and the parts of its f-strings, that hold a space: others are names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def comments(path: Path) -> Iterator[tuple[int, str]]:
    """The comments of a module, those on consecutive lines together, since a sentence may go over several lines."""
    first, lines = 0, list[str]()
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT:
                if lines and token.start[0] != first + len(lines):
                    yield first, "\n".join(lines)
                    lines = []
                first = first if lines else token.start[0]
                lines.append(token.string.lstrip("# "))
    yield first, "\n".join(lines)


def findings(root: Path, pattern: str) -> list[str]:
    """Where `root` has the word, and what to write instead."""
    rule = re.compile(rf"(?<![\w=/`-])(?:{pattern})\b".replace(" ", r"\s"), re.IGNORECASE)
    return [
        f"{file}:{line + text.count(chr(10), 0, found.start())}: {found[0]!r}: write {RULES[pattern][0]}"
        for file, line, text in texts(root)
        for found in rule.finditer(text)
    ]


@pytest.mark.parametrize("pattern", RULES, ids=lambda pattern: RULES[pattern][0])
def test_the_standard_term_is_used(pattern: str) -> None:
    assert findings(ROOT, pattern) == []


@pytest.mark.parametrize("pattern", RULES, ids=lambda pattern: RULES[pattern][0])
def test_the_rule_finds_a_bad_example_in_every_kind_of_text(pattern: str, tmp_path: Path) -> None:
    instead, bad = RULES[pattern]
    files = {
        "batchlab/bad.py": f'"""A docstring.\n\n{bad}\n"""\n\nx = f"{{y}}: {bad}"  # {bad}\n',
        "scripts/bad": "#!/usr/bin/env -S sh -c 'exec python'\nx = 1  # " + bad.replace(" ", "\n# "),
        "scripts/bad.sh": f"#!/bin/sh\necho {bad}\n",
        "batchlab/cli/lab/configs/bad.yaml": f"key: 1 # {bad}\n",
        "batchlab/cli/lab/bad.py.txt": f"# {bad}\n",
        "configs/bad.yaml": f"# {bad}\n",
        "docs/bad.md": f"A page.\n{bad}\n",
        "README.md": bad.replace(" ", "\n"),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")

    found = findings(tmp_path, pattern)

    assert {line.partition(":")[0] for line in found} == set(files)
    assert sum(line.startswith("batchlab/bad.py") for line in found) == 3  # the docstring, the message and the comment
    assert all(line.endswith(f": write {instead}") for line in found)


@pytest.mark.parametrize("good", ["the learning rate", "data go on the device", "it stands for a", "examples of a row"])
def test_a_good_text_is_left_alone(good: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(good, encoding="utf-8")

    assert [line for pattern in RULES for line in findings(tmp_path, pattern)] == []
