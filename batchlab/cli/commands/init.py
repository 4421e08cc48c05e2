"""`batchlab init`: makes a small lab that the user can change."""

import shlex
from importlib.resources import files
from pathlib import Path

from batchlab.adapters.installed import missing
from batchlab.cli.output import definitions, say
from batchlab.cli.parser import Parser
from batchlab.errors import BadRequest
from batchlab.printable import printable
from batchlab.recording import disk

EXAMPLES = """\
examples:
  batchlab init my_lab                  my_lab/ with a model, data, configs and a test that work
  batchlab init .                       the same into this folder, if it is empty
  batchlab init my_lab --from loaders   its data are given by a DataLoader of your own (Task.from_loaders)
  batchlab init my_lab --from torch     its data and loss are those of a usual training script
  batchlab init my_lab --from lightning     a LightningModule and a LightningDataModule (Task.from_lightning)
  batchlab init my_lab --from hugging_face  a model of transformers and a Dataset (Task.from_hugging_face)

Then: cd my_lab && batchlab check && batchlab sweep batch_size=8,64"""

# Each a folder of files that replace those of the lab; the package that they need besides, as it is imported.
STARTS = {"torch": None, "loaders": None, "lightning": "lightning", "hugging_face": "transformers"}

MEANINGS = {
    "my_model.py": "the model",
    "my_data.py": "the data",
    "configs/lab/default.yaml": "the defaults of the commands in this folder",
    "my_instrument.py": "a measurement of your own: instruments=mine",
    "test_my_lab.py": "tests of the model and the data: python -m pytest",
}


def parser() -> Parser:
    """Its arguments."""
    made = Parser("init", "Makes a small lab to start from: model, data, configs, a test.", EXAMPLES)
    made.add_argument("folder", metavar="DIR", help="a new folder, or an empty one")
    made.add_argument("--from", dest="start", choices=STARTS, help="what you have: your code goes into these places")
    return made


def main(arguments: list[str]) -> int:
    """Writes the lab, and prints what is in it and what to type next."""
    given = parser().parse_args(arguments)
    folder = Path(given.folder)
    write(folder, given.start)
    say(f"{printable(folder)}/")
    say(definitions(list(MEANINGS.items())))
    there = "" if folder.resolve() == Path.cwd() else f"cd {shlex.quote(str(folder))} && "
    needed = STARTS.get(given.start)
    if needed is not None and (command := missing(needed)) is not None:
        say(f"It needs {needed}, which is not installed here: {command}")
    say(f"Next: {there}batchlab check && batchlab sweep batch_size=8,64")
    return 0


def write(folder: Path, start: str | None = None) -> None:
    """Copies the lab that ships with batchlab into `folder`, with the files of `start`, one of `STARTS`, instead of its
    own; BadRequest where the folder is not empty."""
    if folder.exists() and (not folder.is_dir() or any(path.name != ".git" for path in folder.iterdir())):
        raise BadRequest(f"{printable(folder)} exists and is not empty: give the name of a new folder")
    sources: dict[Path, Path] = {}
    for template in ("lab", *(() if start is None else (f"lab_from/{start}",))):
        top = Path(str(files("batchlab.cli"))) / template
        sources |= {copied_name(path.relative_to(top)): path for path in top.rglob("*") if path.is_file()}
    for name, source in sorted(sources.items()):
        disk.make_folder((folder / name).parent)
        disk.write_atomically(folder / name, source.read_bytes())


def copied_name(name: Path) -> Path:
    """The name in the lab: the templates end in .txt, so that no tool takes them for modules of batchlab."""
    return Path(".gitignore") if name.name == "gitignore.txt" else name.with_name(name.name.removesuffix(".txt"))
