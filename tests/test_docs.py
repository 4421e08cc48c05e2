"""The pages of `docs/` are true: their commands are run, what they show is printed, and their links lead somewhere."""

import ast
import re
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest
from pages import ROOT, Command, Reader, links, read_page, shape, to_run

from batchlab.cli.config_page import page as configuration
from batchlab.cli.quantities_text import markdown as quantities
from batchlab.records import RunRecord
from batchlab.report.claims import CLAIMS
from batchlab.sweep.processes.server import WarmServer

DOCS = ROOT / "docs"
PAGES = {path.name: read_page(path) for path in sorted(DOCS.glob("*.md"))}
COMMANDS = [command for commands in PAGES.values() for command in commands]


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory, server: WarmServer) -> dict[str, Reader]:
    """One for each page, in a folder of his own."""
    return {name: Reader(tmp_path_factory.mktemp("reader"), server) for name in PAGES}


@pytest.mark.parametrize("command", to_run(COMMANDS))
def test_the_command_does_what_the_page_says(
    command: Command,
    readers: dict[str, Reader],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = readers[command.page].types_as_far_as(command, PAGES[command.page], capfd, monkeypatch)

    assert "Traceback" not in done.stdout + done.stderr
    if command.refused:
        assert done.code != 0
        assert command.refused in done.stderr.splitlines()
        return
    allowed = (0, 1) if "doctor" in command.line else (0,)  # 1 says what is wrong with this machine
    assert done.code in allowed, done.stderr + done.stdout
    printed = {shape(line) for line in (done.stdout + done.stderr).splitlines()}
    for line in command.shown:
        assert line.strip() in ("", "...") or shape(line) in printed, line


def test_the_configuration_page_is_what_the_code_says() -> None:
    written = (DOCS / "configuration.md").read_text(encoding="utf-8")
    assert written == configuration(), "batchlab config --markdown > docs/configuration.md"


def test_every_option_and_key_of_the_configuration_page_has_a_meaning() -> None:
    lines = configuration().splitlines()
    rows = [line for line in lines if line.startswith("| `")]
    undescribed = [line for line, after in zip(lines, lines[2:], strict=False) if line.startswith("### ") and not after]

    assert len(rows) > 200
    assert [row for row in rows if not (row.split(" | ")[1:3])[-1].strip(" |")] == []
    assert undescribed == []


def test_the_page_on_measuring_has_every_declared_quantity() -> None:
    written = (DOCS / "measuring.md").read_text(encoding="utf-8")
    assert quantities() in written, "its table is what batchlab.cli.quantities_text.markdown() returns"


def test_the_claims_page_has_every_claim_with_its_words() -> None:
    text = (DOCS / "claims.md").read_text(encoding="utf-8")
    heads = re.findall(r"^### (\S+): (.+)$", text, re.MULTILINE)
    assert sorted(heads) == sorted((claim.id, claim.text) for claim in CLAIMS)


def quoted_messages() -> Iterator[str]:
    """Messages that the page on troubleshooting quotes: in quotation marks, and in the table of GPU messages."""
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from (message.removesuffix("...").strip(" :") for message in re.findall(r'"([^"\n]+)"', prose))
    table = prose.partition("| message | what to do |\n| --- | --- |\n")[2].partition("\n\n")[0]
    yield from (message.strip() for row in table.splitlines() for message in row.split("|")[1].split(";"))


def printed_texts() -> Iterator[str]:
    """The string literals of the package, with N for each value that an f-string fills in."""
    for path in sorted((ROOT / "batchlab").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "N" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_messages_that_the_page_on_troubleshooting_quotes_are_in_the_code() -> None:
    messages = list(quoted_messages())
    printed = "\n".join(printed_texts())
    values = r"\btrain\b|\d[\d.]*|(?<=')\w+(?=')"  # 17, 550.54.15, 'experiment', the task's train

    assert len(messages) > 15
    assert [message for message in messages if re.sub(values, "N", message) not in printed] == []


def test_the_run_folder_page_has_every_field_of_a_record() -> None:
    text = (DOCS / "run_folder.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(RunRecord.__dataclass_fields__)


LINKING = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted((ROOT / ".github").rglob("*.md"))]


@pytest.mark.parametrize("path", LINKING, ids=lambda path: path.name)
def test_links_lead_to_files_that_are_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for to in links(text):
        name, _, anchor = to.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), to
        if anchor:
            heads = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}, to


def test_the_picture_of_the_architecture_is_drawn_from_the_imports() -> None:
    loader = SourceFileLoader("draw_architecture", str(ROOT / "scripts/draw_architecture"))
    script = module_from_spec(spec_from_loader("draw_architecture", loader))
    loader.exec_module(script)

    assert script.PICTURE.read_text(encoding="utf-8") == script.draw(ROOT), "scripts/draw_architecture draws it"


def test_every_picture_is_shown_on_a_page() -> None:
    shown = {(DOCS / to).resolve() for name in PAGES for to in links((DOCS / name).read_text(encoding="utf-8"))}
    shown |= {(ROOT / to).resolve() for to in links((ROOT / "README.md").read_text(encoding="utf-8"))}
    assert [path.name for path in (DOCS / "pictures").glob("*") if path.resolve() not in shown] == []


def test_each_sentence_is_on_its_own_line() -> None:
    for name in PAGES.keys() - {"configuration.md"}:  # whose tables are the comments of files
        prose = re.sub(r"^```.*?^```", "", (DOCS / name).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for line in prose.splitlines():
            if line.startswith("|"):
                continue
            plain = re.sub(r"`[^`]*`", "", line)
            assert not re.search(r"[a-z)][.!?] [A-Z]", plain), f"{name}: {line}"
