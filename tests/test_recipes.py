"""The recipes of docs/architecture.md name every file that an addition touches: each is followed in a copy, and run."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROW = re.compile(r"^\| `([^`]+)` \| (.+) \|$", re.MULTILINE)
CHOSEN = re.compile(r"ROOM|NAME")  # in the path of a file that is the author's to name
MADE = {"docs/configuration.md", "docs/measuring.md"}  # in part from the code
RELEASE_NOTE = {".github/CHANGELOG.md": (("### Added\n", "\n- A toy.\n"),)}

# Run in the copy: makes the pages that are made from the code, then runs the tests that are named, in one process.
FOLLOW = r"""
import re, sys
from pathlib import Path
import pytest
from batchlab.cli.config_page import page
from batchlab.cli.quantities_text import markdown

Path("docs/configuration.md").write_text(page(), encoding="utf-8")
measuring = Path("docs/measuring.md")
table = re.compile(r"^\| measurement .*?\n(?=\n)", re.MULTILINE | re.DOTALL)
measuring.write_text(table.sub(lambda _: markdown(), measuring.read_text(encoding="utf-8")), encoding="utf-8")
sys.exit(pytest.main(["-p", "no:cacheprovider", "--tb=short", *sys.argv[1:]]))
"""


@dataclass(frozen=True)
class Toy:
    """What an author of a toy writes."""

    name: str
    recipe: str  # heading of the page
    added: dict[str, str]  # new files
    changed: dict[str, tuple[tuple[str, str], ...]]  # a text that the file has once, and what is put behind it
    runs: str  # a test of what it does when it is run


INSTRUMENT = Toy(
    "instrument",
    "Add an instrument",
    added={
        "batchlab/instruments/gradient/toy_weights.py": '''
"""How large the weights are."""

from collections.abc import Iterator

import torch

from batchlab.instruments.instrument import Instrument
from batchlab.records import Measurement
from batchlab.records import quantities as table
from batchlab.training.state import RunState


class ToyWeights(Instrument):
    """`toy/weight_norm`: the norm of all weights, of the order `power`."""

    quantities = table.TOY

    def __init__(self, *, eval_every: int, power: float = 2.0) -> None:
        self.every: int | None = eval_every
        self.power = power

    def measure(self, state: RunState) -> Iterator[Measurement]:
        flat = torch.cat([p.detach().flatten() for p in state.model.parameters()])
        yield state.measurement("toy/weight_norm", flat.norm(self.power).item())
''',
        "tests/instruments/gradient/test_toy_weights.py": """
import math

import torch
from instrument_catalogue import Noisy, trained

from batchlab.instruments.gradient.toy_weights import ToyWeights


def test_the_norm_is_that_of_the_weights():
    _, _, measured = trained([ToyWeights(eval_every=8)], "fp32")
    torch.manual_seed(0)
    begun = math.sqrt(sum(float((p.detach().double() ** 2).sum()) for p in Noisy().parameters()))

    assert abs(measured[0].value - begun) < 1e-5
""",
    },
    changed={
        "batchlab/records/quantities.py": (
            (
                'GRADIENT = (Quantity("train/gradient_norm", SLOPE, "norm of a batch\'s gradient", '
                "chart=charts.GRADIENT_NORM),)\n",
                'TOY = (Quantity("toy/weight_norm", NO_UNIT, "norm of the weights", column="toy\\nnorm"),)\n',
            ),
            ("*GENERALISATION, *MEMORISATION", ", *TOY"),
        ),
        "configs/instruments/full.yaml": (
            (
                "  double: false # true computes in float64\n",
                "toy_weights:\n"
                "  _target_: batchlab.instruments.gradient.toy_weights.ToyWeights\n"
                "  power: 2.0 # order of the norm\n",
            ),
        ),
        "docs/measuring.md": (("## Gradient\n", "\n`toy/weight_norm` is the norm of all weights.\n"),),
        "tests/instrument_catalogue.py": (
            (
                "from batchlab.instruments.gradient.noise_scale import GradientNoiseScale\n",
                "from batchlab.instruments.gradient.toy_weights import ToyWeights\n",
            ),
            ("CATALOGUE = {\n", '    "toy_weights": lambda: ToyWeights(eval_every=8),\n'),
        ),
        **RELEASE_NOTE,
    },
    runs="""
import csv
import io

from plain_defaults import read
from rich.console import Console
from torture.tiny import folder_of, tiny, train

from batchlab.cli.main import main
from batchlab.recording.journal import read_journal
from batchlab.sweep.summary.table import show


def test_a_toy_run_has_it_in_its_journal_the_table_and_the_export(tmp_path, capsys):
    full = read("instruments/full.yaml")
    config = tiny(tmp_path, instruments=read("instruments/default.yaml") | {"toy_weights": full["toy_weights"]})
    study = folder_of(config).parent

    record = train(config)

    taken = [m.value for m in read_journal(folder_of(config) / "metrics.jsonl") if m.name == "toy/weight_norm"]
    assert len(taken) >= 3
    assert record.final["toy/weight_norm"] == taken[-1] > 0
    console = Console(file=io.StringIO(), width=200)
    show([record], study, console)
    assert "toy" in console.file.getvalue()
    assert f"{taken[-1]:.4g}" in console.file.getvalue()
    capsys.readouterr()
    assert main(["export", str(study), "--output", "-"]) == 0
    heads, row = csv.reader(capsys.readouterr().out.splitlines())
    assert dict(zip(heads, row))["final.toy/weight_norm"] == repr(taken[-1])
""",
)

RULE = Toy(
    "rule",
    "Add a learning-rate rule",
    added={},
    changed={
        "batchlab/science/scaling/lr_scaling.py": (
            (
                "    return replace(base, lr=base.lr * math.sqrt(ratio))\n",
                "\n\ndef toy_root(ratio: float, base: Scaled) -> Scaled:\n"
                '    """Between none and the square root."""\n'
                "    return replace(base, lr=base.lr * ratio ** (1 / 3))\n",
            ),
            ('    "sqrt": square_root,\n', '    "toy_root": toy_root,\n'),
        ),
        "tests/science/scaling/test_lr_scaling.py": (
            (
                "BY_HAND = [\n",
                '    ("toy_root", 8, 0.2, (0.9, 0.95), 1e-8),\n    ("toy_root", 0.125, 0.05, (0.9, 0.95), 1e-8),\n',
            ),
        ),
        "tests/cli/test_cli_lr_table.py": (
            (
                "sqrt              256   0.2828       0.9     0.999      1e-08\n",
                "toy_root            8    0.063       0.9     0.999      1e-08\n"
                "toy_root           32      0.1       0.9     0.999      1e-08\n"
                "toy_root          256      0.2       0.9     0.999      1e-08\n",
            ),
            ('        ["sqrt", "64", "0.02828"],\n', '        ["toy_root", "64", "0.0252"],\n'),
        ),
        **RELEASE_NOTE,
    },
    runs="""
from pathlib import Path

from torture.tiny import tiny, train

from batchlab.cli.main import main


def test_a_toy_run_is_scaled_by_it_and_the_help_lists_it(tmp_path, capsys):
    record = train(tiny(tmp_path, batch_size=4, lr=0.05, lr_scaling="toy_root"))

    assert record.lr_scaled == 0.05 * (4 / 32) ** (1 / 3)
    assert main(["sweep", "--help"]) == 0
    assert "none, linear, sqrt, toy_root" in " ".join(capsys.readouterr().out.split())
    assert "none, linear, sqrt, toy_root" in Path("docs/configuration.md").read_text()
""",
)

CLAIM = Toy(
    "claim",
    "Add a claim",
    added={},
    changed={
        "batchlab/report/claims/noise.py": (
            (
                "    return [float(np.polyfit(x, row, 1)[0]) for row in table.values]\n",
                "\n\ndef toy_loss(study: Curves) -> Findings:\n"
                '    """The training loss at the end, over B."""\n'
                "    found: list[Evidence] = []\n"
                "    for setting in study.settings:\n"
                "        values = log(last(study, setting.runs, WINDOW_LOSS.name))\n"
                '        what = "log training loss at the end, largest minus smallest batch size"\n'
                "        found += over_batch_sizes(\n"
                '            setting, values, what, EXAMPLES, sign=1, margin="loss", unit="log ratio"\n'
                "        )\n"
                '    return Findings(found, "it needs train/loss at two batch sizes or more")\n',
            ),
            (
                "from batchlab.report.claims.evidence import WEIGHTS, Findings, evidence, table_of, within\n",
                "from batchlab.report.claims.evidence import EXAMPLES, over_batch_sizes\n"
                "from batchlab.records.quantities import WINDOW_LOSS\n"
                "from batchlab.report.claims.run_values import last\n",
            ),
        ),
        "batchlab/report/claims/__init__.py": (
            (
                "CLAIMS = (\n",
                '    Statement("toy-loss", "larger batch ends at a larger training loss", noise.toy_loss),\n',
            ),
        ),
        "docs/claims.md": (
            (
                "## Learning\n",
                "\n### toy-loss: larger batch ends at a larger training loss\n\n"
                "The logarithm of the last `train/loss`, over the batch size.\n",
            ),
        ),
        "tests/invented/claims.py": (
            (
                "    return everywhere(lambda b, s: run(b, s, train_seconds=10 * power(truth, b, s, -0.5)))\n",
                "\n\ndef toy_loss(truth: int) -> Study:\n"
                '    return everywhere(lambda b, s: run(b, s, {"train/loss": power(truth, b, s, 0.5)}))\n',
            ),
            ("# by claim, in the report's order\n", '    "toy-loss": toy_loss,\n'),
        ),
        **RELEASE_NOTE,
    },
    runs="""
from batchlab.cli.main import main
from invented.folders import write_run


def test_a_toy_report_has_its_verdict(tmp_path, capsys):
    for size in (8, 32, 128):
        for seed in range(5):
            loss = size ** (0.5 + seed / 50)
            write_run(tmp_path / "s", size, seed, final={"train/loss": loss}, curve=[("train/loss", 100, 1.0, loss)])

    assert main(["report", str(tmp_path / "s"), "--no-files"]) == 0

    (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("toy-loss")]
    assert row[1] == "supported"
""",
)


TOYS = (INSTRUMENT, RULE, CLAIM)
# Those of the repository that know every instrument, rule and claim, in the copy: arguments of pytest.
TESTS = (
    *("tests/instruments/gradient/test_toy_weights.py", "tests/instruments/test_no_trace.py"),
    *("tests/instruments/test_what_they_declare.py", "tests/science/scaling/test_lr_scaling.py"),
    *("tests/cli/test_cli_lr_table.py", "tests/report/claims/test_claims.py", "tests/test_docs.py"),
    "tests/test_architecture.py",
    "-k",
    "toy or test_running or every_name or every_quantity or by_hand or below_the_table or in_order"
    " or catalogue_is_all or configuration_page or page_on_measuring or claims_page or quantities_are_named",
)


def listed(recipe: str) -> dict[str, str]:
    """The files of a recipe of the page, with what is to be added to each."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^### {recipe}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    return dict(ROW.findall(section))


def of_row(file: str, rows: Collection[str]) -> str | None:
    """The row that names `file`, itself or with a name that is the author's to choose."""
    fits = (row for row in rows if re.fullmatch(CHOSEN.sub(r"\\w+", re.escape(row)), file))
    return file if file in rows else next(fits, None)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not {"__pycache__", ".hypothesis"} & {*path.parts}
    }


@pytest.fixture(scope="module")
def touched(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files that differ in a copy of the repository with all three toys, in which their tests have passed."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("batchlab", "configs", "docs", "scripts", "tests", ".github"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy / name)
    before = files(copy)
    for toy in TOYS:
        for name, text in toy.added.items():
            (copy / name).write_text(text.lstrip(), encoding="utf-8")
        for name, pairs in toy.changed.items():
            text = (copy / name).read_text(encoding="utf-8")
            for behind, more in pairs:
                assert text.count(behind) == 1, (name, behind)
                text = text.replace(behind, behind + more)
            (copy / name).write_text(text, encoding="utf-8")
        (copy / f"tests/test_running_{toy.name}.py").write_text(toy.runs.lstrip(), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", FOLLOW, *(f"tests/test_running_{toy.name}.py" for toy in TOYS), *TESTS],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": f"{copy}:{copy / 'tests'}", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for toy in TOYS:
        assert f"test_running_{toy.name}.py ." in done.stdout  # it was run
    after = files(copy)
    return {name for name in after if after[name] != before.get(name) and "test_running" not in name}


def test_toys_that_work_touch_only_files_that_a_recipe_names(touched: set[str]) -> None:
    rows = {row for toy in TOYS for row in listed(toy.recipe)}

    assert {name for name in touched if of_row(name, rows) is None} == set()


@pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.name)
def test_a_toy_touches_the_files_that_its_recipe_names(toy: Toy, touched: set[str]) -> None:
    rows = listed(toy.recipe)

    own = {*toy.added, *toy.changed}
    assert {name for name in own if of_row(name, rows) is None} == set()
    needed = {row for row, text in rows.items() if not text.startswith("If ")}
    assert needed <= {of_row(name, rows) for name in own | (touched & MADE)}


@pytest.mark.parametrize("recipe", ["Add an instrument", "Add a learning-rate rule", "Add a claim", "Add a device"])
def test_every_file_that_a_recipe_names_is_there(recipe: str) -> None:
    named = listed(recipe)

    assert len(named) > 4
    assert [name for name in named if not CHOSEN.search(name) and not (ROOT / name).is_file()] == []
    parents = [(ROOT / name.partition("ROOM")[0]).parent if "ROOM" in name else (ROOT / name).parent for name in named]
    assert [str(parent) for parent in parents if not parent.is_dir()] == []


def test_every_module_on_the_way_of_a_point_is_there() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    modules = set(re.findall(r"`(batchlab/[\w/]+\.py)`", text))

    assert len(modules) > 50
    assert [name for name in sorted(modules) if not CHOSEN.search(name) and not (ROOT / name).is_file()] == []
