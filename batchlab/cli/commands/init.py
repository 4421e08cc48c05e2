"""`batchlab init`: makes a small lab that the user can change."""

import shlex
from importlib.resources import files
from pathlib import Path

from batchlab.cli.output import definitions, say
from batchlab.cli.parser import Parser
from batchlab.errors import BadRequest
from batchlab.printable import printable
from batchlab.recording import disk

EXAMPLES = """\
examples:
  batchlab init my_lab            my_lab/ with a model, data, configs and a test that work
  batchlab init .                 the same into this folder, if it is empty

Then: cd my_lab && batchlab check && batchlab sweep batch_size=8,64"""

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
    return made


def main(arguments: list[str]) -> int:
    """Writes the lab, and prints what is in it and what to type next."""
    folder = Path(parser().parse_args(arguments).folder)
    write(folder)
    say(f"{printable(folder)}/")
    say(definitions(list(MEANINGS.items())))
    there = "" if folder.resolve() == Path.cwd() else f"cd {shlex.quote(str(folder))} && "
    say(f"Next: {there}batchlab check && batchlab sweep batch_size=8,64")
    return 0


def write(folder: Path) -> None:
    """Copies the lab that ships with batchlab into `folder`; BadRequest where the folder is not empty."""
    if folder.exists() and (not folder.is_dir() or any(path.name != ".git" for path in folder.iterdir())):
        raise BadRequest(f"{printable(folder)} exists and is not empty: give the name of a new folder")
    template = Path(str(files("batchlab.cli"))) / "lab"
    for source in sorted(path for path in template.rglob("*") if path.is_file()):
        copy = folder / copied_name(source.relative_to(template))
        disk.make_folder(copy.parent)
        disk.write_atomically(copy, source.read_bytes())


def copied_name(name: Path) -> Path:
    """The name in the lab: the templates end in .txt, so that no tool takes them for modules of batchlab."""
    return Path(".gitignore") if name.name == "gitignore.txt" else name.with_name(name.name.removesuffix(".txt"))
