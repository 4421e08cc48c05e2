"""What a person sees of a study: terminal, Markdown, JSON, the page and its pictures."""

import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from invented.formulas import E_MIN, S_MIN, SEEDS, SIZES, completed, write_run, write_study
from rich.console import Console

from batchlab.recording.files import to_json
from batchlab.report.claims import CLAIMS
from batchlab.report.making import make, write
from batchlab.report.render.terminal import show

pytestmark = pytest.mark.long  # whole reports with their figures

PAYLOADS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</title></svg></style><script>alert(2)</script>",
    "]]><script>alert(3)</script>",
    "<!-- --><b>bold</b>",
    "{{ 7 * 7 }}{% raw %}",
    '" onload="alert(4)',
    "' onclick='alert(5)",
    "javascript:alert(6)",
    "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "\u202egnp.exe",
    "\u05e9\u05dc\u05d5\u05dd",
    "a|b|c\n\n# heading",
    "[link](javascript:alert(7))",
    "![image](http://example.org/x.png)",
    "`code` **bold** _it_ ~~s~~",
    "[red]markup[/red]",
    "$\\frac{1}{0}$ $x",
    "\udce9 lone surrogate",
    "../../../etc/passwd",
)


class Page(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_study(tmp_path_factory.mktemp("runs") / "invented")
    write(make(folder), folder)
    return folder


@pytest.fixture(scope="module")
def page(study: Path) -> Page:
    return Page((study / "report.html").read_text(encoding="utf-8"))


def shown(folder: Path, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    show(make(folder), console)
    return console.file.getvalue()


def test_the_page_has_no_scripts_and_makes_no_requests(page: Page) -> None:
    tags = {tag for tag, _ in page.elements}
    addresses = [
        value for _, attributes in page.elements for key, value in attributes.items() if key in ("src", "href")
    ]
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]

    assert not tags & {"script", "iframe", "object", "embed", "form", "img", "a", "base"}
    assert all(address == "data:," or address.startswith("#") for address in addresses)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not [key for _, attributes in page.elements for key in attributes if key == "style" or key.startswith("on")]


def test_every_picture_of_the_page_is_described_and_ids_are_unique(page: Page) -> None:
    pictures, ids = page.all("svg"), [a["id"] for _, a in page.elements if "id" in a]
    references = [a["href"][1:] for _, a in page.elements if (a.get("href") or "").startswith("#")]

    assert len(pictures) >= 12
    for picture in pictures:
        assert picture["role"] == "img"
        assert set(picture["aria-labelledby"].split()) <= set(ids)
    assert len(ids) == len(set(ids))
    assert set(references) <= set(ids)


def test_the_pictures_are_files_and_images_in_tensorboard(study: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    files = {path.stem: path.read_bytes() for path in (study / "figures").iterdir()}
    view = EventAccumulator(str(study / "tensorboard"), size_guidance={"images": 0})
    view.Reload()

    assert set(view.Tags()["images"]) == {f"figures/{name}" for name in files}
    assert {"loss_over_examples", "steps_to_target", "throughput", "noise_scale", "sharpness"} <= set(files)
    for name, content in files.items():
        (image,) = view.Images(f"figures/{name}")
        assert image.encoded_image_string == content
        assert (image.width, image.height) == (735, 555)


def test_the_json_holds_every_claim_every_run_and_the_critical_batch_size(study: Path) -> None:
    content = json.loads((study / "report.json").read_text(encoding="utf-8"))

    assert len(content["claims"]) == len(CLAIMS)
    assert len(content["runs"]) == len(SIZES) * len(SEEDS) + 1
    critical = content["fits"]["groups"][0]["to_target"]["critical"]["batch_size"]
    assert critical["value"] == pytest.approx(E_MIN / S_MIN, rel=0.05)  # as planted; steps are whole
    assert critical["low"] < critical["value"] < critical["high"]
    files = {figure["file"] for figure in content["figures"] if figure["file"]}
    assert files == {f"figures/{path.name}" for path in (study / "figures").iterdir()}


def test_the_recommendation_comes_first_and_every_claim_has_a_row(study: Path) -> None:
    terminal = shown(study)
    markdown = (study / "report.md").read_text(encoding="utf-8")
    ids = [claim["id"] for claim in json.loads((study / "report.json").read_text())["claims"]]

    for text, head in ((terminal, ""), (markdown, "## ")):
        places = [text.index(f"{head}{title}") for title in ("Recommendation", "Claims", "Fits")]
        assert places == sorted(places)
    assert all(re.search(rf"^{re.escape(name)} +\S", terminal, re.MULTILINE) for name in ids)
    assert "did not fit" not in terminal.split("Claims")[0] or "1,024" in terminal
    assert "CUDA out of memory" in terminal


def test_hostile_names_and_errors_come_out_as_text(tmp_path: Path) -> None:
    folder = tmp_path / "hostile"
    for i, payload in enumerate(PAYLOADS):
        record, measured = completed(8 if i % 2 else 32, i, points=4, model={"_target_": f"net.{payload}", "width": 8})
        if i >= 4:
            record |= {"status": "failed", "reason": f"{payload} {i}", "study": payload}
        write_run(folder, f"run-{i}", record, measured)
        record_file = folder / f"run-{i}" / "record.json"
        record_file.write_text(to_json(json.loads(record_file.read_text()) | {"run_id": f"{payload} {i}"}))

    write(make(folder), folder)

    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    assert not {tag for tag, _ in page.elements} & {"script", "img", "a"}
    assert "<script>alert(1)</script>" in page.text
    assert "]]><script>alert(3)</script>" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on")]
    assert not re.search(r"<(script|img|b)\b", markdown)
    assert "](javascript" not in markdown
    assert "](http" not in markdown
    for text in (page.text, markdown, shown(folder)):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\ud800-\udfff]", text)


@pytest.mark.parametrize(
    "folder",
    ["empty", "half_finished", "all_failed", "one_size", "one_seed_and_damaged"],
)
def test_the_report_of_a_poor_study_says_what_is_missing(folder: str, tmp_path: Path) -> None:
    study = tmp_path / folder
    study.mkdir()
    if folder == "one_seed_and_damaged":
        write_study(study, seeds=(0,), points=5)
    if folder == "one_size":
        for seed in (0, 1):
            write_run(study, f"run-{seed}", *completed(32, seed, points=5))
    for i, size in enumerate((8, 32) if folder in ("all_failed", "half_finished") else ()):
        record, measured = completed(size, 0, points=5)
        ended = {"all_failed": "failed", "half_finished": "running"}[folder]
        record |= {"status": ended, "reason": "it broke", "final": {}, "best": {}, "target": None}
        write_run(study, f"run-{i}", record, measured if folder == "half_finished" else [])
    if folder == "one_seed_and_damaged":
        (study / "bs8-lr0.02-s0" / "record.json").write_text("{")
        (study / "bs32-lr0.04-s0" / "metrics.jsonl").write_text('no line\n{"torn')

    stale = study / "figures" / "throughput.png"  # of a report that had the data
    stale.parent.mkdir()
    stale.write_bytes(b"old")

    drawn = write(make(study), study)

    terminal = shown(study)
    assert not stale.exists() or stale.read_bytes() != b"old"
    assert len(terminal) > 200
    assert (study / "report.html").exists()
    assert len(list((study / "figures").iterdir())) == sum(drawing.figure is not None for drawing in drawn)
    assert all(drawing.caption for drawing in drawn)
    expected = {"empty": "No runs", "half_finished": "running", "all_failed": "it broke"}
    expected["one_seed_and_damaged"] = "cannot be read"
    assert expected.get(folder, "not tested") in terminal


def test_the_command_reads_a_study_without_torch_and_refuses_a_missing_one(tmp_path: Path) -> None:
    record, _ = completed(32, 0)
    write_run(tmp_path / "runs" / "invented", "run", record | {"status": "failed", "final": {}, "best": {}}, [])
    program = (
        "import sys; from batchlab.cli.main import main\n"
        "codes = main(['report', 'invented', '--out', 'made']), main(['report', 'invented', '--no-files'])\n"
        "assert codes == (0, 0) and 'torch' not in sys.modules and 'hydra' not in sys.modules\n"
        "sys.exit(main(['report', 'inventd']))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 2, done.stderr
    assert "invented" in done.stderr
    assert done.stdout.count("Recommendation") == 2
    assert {path.name for path in (tmp_path / "made").iterdir()} >= {
        "report.html",
        "report.md",
        "report.json",
        "figures",
    }
    assert not (tmp_path / "runs" / "invented" / "report.html").exists()
