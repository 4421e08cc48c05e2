"""The packages of `batchlab/` ("rooms"), their layers ("floors"), and their imports, read from the sources.
If you add or move a room, change `ROOMS` here, and explain it in `.github/decisions/`.
"""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOMS = {  # floor, and the purpose of the room, as in the picture of docs/architecture.md
    "cli": (10, "commands and their output"),
    "hydra_app": (9, "overrides become points"),
    "sweep": (7, "many points, a process each"),
    "worker": (6, "what a child process does"),
    "report": (6, "tables, claims, figures"),
    "tensorboard": (5, "views of run folders"),
    "instruments": (4, "what measures a run"),
    "recording": (4, "the run folder"),
    "training": (3, "loop, data, devices"),
    "host": (3, "this machine, no torch"),
    "data": (3, "shipped data sets"),
    "models": (3, "shipped models"),
    "config": (2, "the table of options"),
    "task": (2, "the contract with your data"),
    "targets": (2, "calls what _target_ names"),
    "records": (1, "values that rooms exchange"),
    "adapters": (1, "other packages' modules"),
    "science": (1, "arithmetic with error bars"),
    "usual_tasks": (1, "their losses and metrics"),
    "config_folder": (1, "where configs lie"),
    "errors": (0, "what can go wrong"),
    "printable": (0, "text for a terminal"),
}
FLOORS = {name: floor for name, (floor, _) in ROOMS.items()}


@functools.cache
def modules(root: Path) -> dict[str, Path]:
    """Dotted name of each module of the package, `batchlab.config` -> its file; a package is its `__init__.py`."""
    found = {}
    for path in sorted((root / "batchlab").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room(module: str) -> str:
    """`config` for `batchlab.config`, `science` for `batchlab.science.memory.knee`, nothing for `batchlab` itself.

    `batchlab.__main__` is the command line.
    """
    name = (*module.split("."), "")[1]
    return "cli" if name == "__main__" else name


def at_import(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported: not in functions, not under TYPE_CHECKING."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop()):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                waiting.extend(node.orelse)
                continue
            if isinstance(node, ast.stmt):
                yield node
            waiting.append(node)


@functools.cache
def imports(root: Path, module: str, *, only_at_import: bool = False) -> set[str]:
    """The modules a module imports: `from batchlab import config` is `batchlab.config`, `import Task` is its home."""
    known = modules(root)
    path = known[module]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    found = set()
    for node in at_import(tree) if only_at_import else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = [*package[: len(package) - node.level + 1], *([node.module] if node.module else [])]
            home = ".".join(origin) if node.level else str(node.module)
            for alias in node.names:
                inner = f"{home}.{alias.name}"
                found.add(inner if inner in known or home == "batchlab" else home)
    return {_home(root, name) if name.count(".") == 1 and name not in known else name for name in found}


def _home(root: Path, name: str) -> str:
    """`batchlab.errors` for `batchlab.BadRequest`, which `batchlab/__init__.py` only re-exports."""
    package, _, public = name.partition(".")
    if package != "batchlab" or public.startswith("__"):
        return name
    for node in ast.walk(ast.parse((root / "batchlab/__init__.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and public in {alias.asname or alias.name for alias in node.names}:
            return ("batchlab." if node.level else "") + str(node.module)
    return name


def each_import(root: Path) -> Iterator[tuple[str, str]]:
    for module in modules(root):
        for imported in sorted(imports(root, module)):
            yield module, imported
