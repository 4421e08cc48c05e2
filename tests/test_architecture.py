"""Tests the architecture (DESIGN): allowed imports, the length of modules, forbidden names.
A rule is a function from a source tree to its violations, as sentences. Each is run twice: on this repository, where it
must find none, and on a made-up bad tree, where it must find some.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rooms import FLOORS, each_import, imports, modules, room

from batchlab.config import BUDGET_UNITS, option_names
from batchlab.records.quantities import TABLE as QUANTITIES

SCIENCE_MAY_IMPORT = {
    *("abc", "bisect", "collections", "dataclasses", "enum", "fractions", "functools", "heapq", "itertools", "math"),
    *("numbers", "operator", "statistics", "typing", "warnings", "numpy", "scipy", "torch", "batchlab"),
}
GLOBAL_RANDOM_STATE = re.compile(
    r"\b(?:np|numpy)\.random\.(?!Generator|default_rng|SeedSequence)\w+|\btorch\.manual_seed\b"
)
FORBIDDEN_NAMES = {"utils", "common", "helpers", "core", "base", "manager", "misc"}
LONGEST_MODULE = 300
LARGEST_ROOM = 14
SAME_IDEA = {
    "examination": {"worker.check", "worker.verify"},
    "findings": {"worker.check", "worker.verify"},
    "learning_rates": {"report.claims", "report.figures"},
    "memory": {"instruments", "report.claims"},
    "noise_scale": {"instruments.gradient", "science.scaling"},
    "probing": {"sweep.find", "worker"},
    "published": {"config", "report.compare"},
    "report": {"cli.commands", "report"},
    "sharpness": {"instruments.curvature", "science.curvature"},
}

Rule = Callable[[Path], Iterator[str]]


def imports_point_down(root: Path) -> Iterator[str]:
    for module, imported in each_import(root):
        here, there = room(module), room(imported)
        if not here or not imported.startswith("batchlab.") or there.startswith("__") or here == there:
            continue
        if here not in FLOORS or there not in FLOORS:
            continue  # reported by every_room_has_a_floor, or handled elsewhere: a name that only __init__ has
        if FLOORS[there] >= FLOORS[here]:
            yield f"{module} (floor {FLOORS[here]}) imports {imported} (floor {FLOORS[there]})"


def every_room_has_a_floor(root: Path) -> Iterator[str]:
    for module in modules(root):
        if room(module) and room(module) not in FLOORS:
            yield f"{module}: give '{room(module)}' a floor, in DESIGN and here"
    for module, imported in each_import(root):
        there = room(imported)
        if imported.startswith("batchlab.") and not there.startswith("__") and there not in FLOORS:
            yield f"{module} imports {imported}, which lies on no floor"


def nobody_imports_the_root(root: Path) -> Iterator[str]:
    """`import batchlab` would let a low module reach everything through its attributes."""
    for module, imported in each_import(root):
        if imported == "batchlab":
            yield f"{module} imports batchlab itself: name the module that is meant"


def science_is_arithmetic(root: Path) -> Iterator[str]:
    for module, imported in each_import(root):
        if room(module) == "science" and imported.split(".")[0] not in SCIENCE_MAY_IMPORT:
            yield f"{module} imports {imported}: science knows numbers only"
    for module, path in modules(root).items():
        if room(module) != "science":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "open":
                yield f"{module}:{node.lineno} opens a file"
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("torch.cuda"):
                yield f"{module}:{node.lineno} knows a device"
            if isinstance(node, ast.Attribute) and GLOBAL_RANDOM_STATE.fullmatch(ast.unparse(node)):
                yield f"{module}:{node.lineno} draws from global random state: take a generator"


def only_hydra_app_imports_hydra(root: Path) -> Iterator[str]:
    for module, imported in each_import(root):
        if imported.split(".")[0] in ("hydra", "hydra_plugins") and room(module) != "hydra_app":
            yield f"{module} imports {imported}: all contact with Hydra is in hydra_app"


def nobody_imports_data_or_models(root: Path) -> Iterator[str]:
    for module, imported in each_import(root):
        if imported.startswith("batchlab.") and room(imported) in ("data", "models") and room(module) != room(imported):
            yield f"{module} imports {imported}: configs name it by _target_"


def report_opens_journals_anywhere(root: Path) -> Iterator[str]:
    for module, imported in each_import(root):
        names = {imported.split(".")[0]} | ({room(imported)} if imported.startswith("batchlab.") else set())
        if room(module) == "report" and names & {"training", "instruments", "worker", "torch", "hydra"}:
            yield f"{module} imports {imported}: a report is made on a laptop"


def parents_need_no_torch(root: Path) -> Iterator[str]:
    """Follows all imports from those of these rooms, also from those inside functions and under TYPE_CHECKING."""
    for module, imported in each_import(root):
        if room(module) in WITHOUT_TORCH:
            for way in ways_to(HEAVY - {"hydra"}, root, imported):
                yield f"{module} -> {way}: {WITHOUT_TORCH[room(module)]}"


HEAVY = {"torch", "torchvision", "hydra"}
WITHOUT_TORCH = {  # and why not
    "recording": "the report uses recording",
    "host": "the parent of a sweep uses host",
    "tensorboard": "the parent of a sweep writes the study's view",
    "report": "a report is made on a laptop",
    "sweep": "what needs torch runs in a child, in worker",
    "hydra_app": "the parent of a sweep runs in hydra_app",
}


def the_command_line_starts_light(root: Path) -> Iterator[str]:
    """Follows all imports: importing torch would delay `--help` by seconds."""
    for module in modules(root):
        if room(module) == "cli":
            for way in ways_to(HEAVY, root, module):
                yield f"{way}: not at the top of a module that the command line imports"


def ways_to(libraries: set[str], root: Path, start: str) -> Iterator[str]:
    """The chains of imports from the module `start` to the libraries, of those that run when it is imported."""
    known = modules(root)
    waiting, seen = [(start, start)], set()
    while waiting:
        name, way = waiting.pop()
        if name.split(".")[0] in libraries:
            yield way
        if name in seen or name not in known:
            continue
        seen.add(name)
        parents = {name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)}
        waiting += [(other, f"{way} -> {other}") for other in imports(root, name, only_at_import=True) | parents]


def modules_are_short(root: Path) -> Iterator[str]:
    for module, path in modules(root).items():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > LONGEST_MODULE:
            yield f"{module} has {lines} lines, more than {LONGEST_MODULE}"


def nobody_imports_in_a_circle(root: Path) -> Iterator[str]:
    """Neither modules nor sub-packages import in a circle; modules next to sub-packages may be between them."""
    known = modules(root)
    among_modules = {module: imports(root, module) & known.keys() for module in known}
    yield from (f"in a circle: {', '.join(circle)}" for circle in circles(among_modules))
    packages = {module.rsplit(".", depth)[0] for module in known for depth in range(1, module.count("."))}
    for package in sorted(packages):
        inside = {module: re.match(rf"{re.escape(package)}\.(\w+)\.", module) for module in known}
        rooms: dict[str, set[str]] = {}
        for module, found in among_modules.items():
            if here := inside[module]:
                there = {match[1] for other in found if (match := inside[other])}
                rooms.setdefault(here[1], set()).update(there - {here[1]})
        yield from (f"the rooms of {package} in a circle: {', '.join(circle)}" for circle in circles(rooms))


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The nodes that remain after repeatedly removing those without incoming or without outgoing edges."""
    left = {node: set(there) - {node} for node, there in graph.items()}
    while True:
        wanted = set().union(*left.values()) if left else set()
        ends = {node for node, there in left.items() if not there & left.keys() or node not in wanted}
        if not ends:
            return [sorted(left)] if left else []
        left = {node: there - ends for node, there in left.items() if node not in ends}


def rooms_are_small(root: Path) -> Iterator[str]:
    folders: dict[Path, int] = {}
    for path in modules(root).values():
        folders[path.parent] = folders.get(path.parent, 0) + (path.name != "__init__.py")
    for folder, count in folders.items():
        if count > LARGEST_ROOM:
            yield f"{folder.relative_to(root)} has {count} modules, more than {LARGEST_ROOM}: it is two rooms"


def one_idea_has_one_name(root: Path) -> Iterator[str]:
    """Two modules may share a name only if they are the same idea in two rooms, as listed in `SAME_IDEA`."""
    homes: dict[str, set[str]] = {}
    for module, path in modules(root).items():
        if path.name != "__init__.py":
            homes.setdefault(path.stem, set()).add(module.rpartition(".")[0].removeprefix("batchlab."))
    for name, rooms in homes.items():
        if len(rooms) > 1 and SAME_IDEA.get(name) != rooms:
            yield f"{name} is the name of modules in {', '.join(sorted(rooms))}"


def names_say_something(root: Path) -> Iterator[str]:
    for folder in ("batchlab", "configs", "scripts", "tests"):
        for path in (root / folder).rglob("*"):
            if path.name != "__pycache__" and set(path.stem.split("_")) & FORBIDDEN_NAMES:
                yield f"{path.relative_to(root)}: forbidden names are {', '.join(sorted(FORBIDDEN_NAMES))}"


def public_names_hide_no_module(root: Path) -> Iterator[str]:
    """Otherwise `batchlab.report` could be the function or the package, depending on the import order."""
    tree = ast.parse((root / "batchlab/__init__.py").read_text(encoding="utf-8"))
    rooms = {room(module) for module in modules(root)} - {""}
    for node in ast.walk(tree):
        names: set[str] = set()
        if isinstance(node, ast.Assign) and any(ast.unparse(target) == "__all__" for target in node.targets):
            names = set(ast.literal_eval(node.value))
        elif isinstance(node, ast.ImportFrom):
            names = {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = {node.name}
        for name in sorted(names & rooms):
            yield f"batchlab.{name} is a public name and a module"


def errors_are_not_swallowed(root: Path) -> Iterator[str]:
    for module, path in modules(root).items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ExceptHandler):
                continue
            broad = node.type is None or re.search(r"\b(Base)?Exception\b", ast.unparse(node.type))
            silent = all(
                isinstance(line, ast.Pass | ast.Continue)
                or (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))
                for line in node.body
            )
            if broad and silent:
                yield f"{module}:{node.lineno} swallows every error"


def only_devices_know_their_kinds(root: Path) -> Iterator[str]:
    """Only one package uses `torch.cuda` and distinguishes kinds of devices; all other code uses the `Device`."""
    for module, path in modules(root).items():
        if module.startswith("batchlab.training.devices"):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if re.search(r"torch\.cuda\b|from torch import .*\bcuda\b|\bdevice\.type\b|\bis_cuda\b|\.cuda\(\)", line):
                yield f"{module}:{number} knows a kind of device: ask batchlab.training.devices"


def options_are_asked_of_their_table(root: Path) -> Iterator[str]:
    """A list of option names in the code would be forgotten when an option is added: use `config/options.py` instead.
    A list is a literal collection that names two options or more: by strings, as keys, or by reading a config.
    Lists that do not follow from the table are allowed, with a description in `LISTED`.
    """
    for module, line, names in _lists_of_options(root):
        if (module, names) not in LISTED:
            yield f"{module}:{line} lists options: {', '.join(names)}"


def _lists_of_options(root: Path) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    for module, path in modules(root).items():
        if module == "batchlab.config.options":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        # `batch, micro = config.batch_size, config.micro_batch_size` names values.
        named = {
            id(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple)
        }
        for node in ast.walk(tree):
            names = {text.split(".")[0] for text in _texts(node) if NAME.fullmatch(text)} & _OPTIONS
            if len(names) > 1 and id(node) not in named:
                yield module, node.lineno, tuple(sorted(names))  # type: ignore[attr-defined]


# These are also names of quantities, so they do not indicate a list of options.
_OPTIONS = {*option_names()} - {*BUDGET_UNITS, "report"}
NAME = re.compile(r"\w+(\.\w+)*")  # an override, `lr=0.1`, is a value
# Lists that do not follow from the table, by module and options.
LISTED = {
    (
        "batchlab.instruments.panel",
        ("batch_size", "clip_norm", "eval_batch_size", "eval_every", "log_every", "micro_batch_size", "seed"),
    ): "what an instrument's signature may ask for, some of it worked out: a contract with users' own",
    (
        "batchlab.worker.probe",
        ("data", "model", "optimizer"),
    ): "the type of what each group makes; a group that it lacks is a KeyError",
    (
        "batchlab.recording.flat_options",
        ("batch_size", "seed"),
    ): "fields of a record, which hold where its config is damaged",
    ("batchlab.report.claims.next_command", ("data", "model")): "the task that a claim is tested on",
    (
        "batchlab.report.claims.next_command",
        ("batch_size", "seed"),
    ): "what a claim varies, with the values that it needs",
    ("batchlab.report.claims.next_command", ("runs_dir", "study")): "the end of a command: where it writes",
    ("batchlab.report.tables.run_again", ("grids", "study")): "what is typed anew for another run of the same",
    ("batchlab.report.render.content", ("batch_size", "seed")): "fields of a record, as the label of a run",
    ("batchlab.report.render.machine_readable", ("published", "study")): "keys of report.json",
    ("batchlab.report.compare.published", ("batch_size", "seed")): "axes of a table of runs",
    ("batchlab.sweep.identity", ("batch_size", "lr")): "the readable prefix of a run's name, which is never to change",
    ("batchlab.sweep.identity", ("precision", "seed")): "the readable prefix of a run's name, which is never to change",
    (
        "batchlab.training.updates.optimizer",
        ("lr", "weight_decay"),
    ): "arguments of an optimizer that are not keys of its group",
    ("batchlab.training.checkpoint", ("instruments", "model", "optimizer")): "parts whose state a checkpoint holds",
    ("batchlab.training.losses", ("model", "precision")): "attributes of a class",
}


def _texts(node: ast.AST) -> set[str]:
    """The strings in a literal collection and in those unpacked into it, and what its entries read."""
    if isinstance(node, ast.Dict):
        entries: list[ast.expr | None] = [*node.keys]
    elif isinstance(node, ast.Tuple | ast.List | ast.Set):
        entries = [*node.elts]
    else:
        return set()
    starred = [entry.value for entry in entries if isinstance(entry, ast.Starred)]
    return {*map(_read, entries)}.union(*(_texts(entry) for entry in starred))


def _read(entry: ast.expr | None) -> str:
    """`lr` of `"lr"`, and of the first of `config.lr`, `x.config["lr"]` and `asked.get("lr")` in an entry."""
    if isinstance(entry, ast.Constant):
        return str(entry.value)
    for node in ast.walk(entry) if entry is not None and not isinstance(entry, ast.Starred | ast.Dict) else ():
        match node:
            case ast.Attribute(value=holder, attr=name) if re.fullmatch(r"(.*\.)?_?config", ast.unparse(holder)):
                return name
            case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value=str(name)), *_]):
                return name
            case ast.Subscript(slice=ast.Constant(value=str(name))):
                return name
    return ""


def quantities_are_named_by_their_table(root: Path) -> Iterator[str]:
    """Code that reads measurements takes their names, or those of columns, from `records/quantities.py`.
    Instruments declare their quantities from that table, which another test checks.
    """
    columns = {name: q for q in QUANTITIES for name in (q.name, q.best, q.final)}
    for module, path in modules(root).items():
        if room(module) in ("records", "training", "instruments"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in columns:
                yield f"{module}:{node.lineno} types {node.value}: take it from records/quantities.py"


WRITERS = {  # of the fields of a `RunState`, as documented there; no code assigns to the others
    **dict.fromkeys(("learning_rate", "step", "examples"), ("loop", "checkpoint")),
    "steps_without_terms": ("loop", "checkpoint"),
    "validated": ("passes.evaluation",),
    "eval_at_most": ("passes.evaluation", "checkpoint"),
    "changes_input": ("passes.evaluation_batches", "checkpoint"),
    "evaluation_draws": ("passes.evaluation_batches", "checkpoint"),
}


def the_state_is_written_by_whom_it_names(root: Path) -> Iterator[str]:
    for module, path in modules(root).items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Store):
                continue
            holder = ast.unparse(node.value)
            writers = {f"batchlab.training.{name}" for name in WRITERS.get(node.attr, ())}
            if (holder == "state" or holder.endswith(".state")) and module not in writers:
                yield f"{module}:{node.lineno} writes {node.attr} of a run's state"


def forward_and_loss_are_spelled_once(root: Path) -> Iterator[str]:
    """Only `training/losses.py` calls the forward pass and the loss; tasks, data and models define both."""
    for module, path in modules(root).items():
        if module == "batchlab.training.losses" or room(module) in ("task", "usual_tasks", "data", "models"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and OF_A_TASK.fullmatch(ast.unparse(node)):
                yield f"{module}:{node.lineno} spells {ast.unparse(node)}: take it from training/losses.py"
            if isinstance(node, ast.Call) and PASSES.fullmatch(ast.unparse(node.func)):
                yield f"{module}:{node.lineno} calls {ast.unparse(node.func)}: take it from training/losses.py"


OF_A_TASK = re.compile(r"(.*\.)?task\.(forward|(training_)?loss|metrics)")
PASSES = re.compile(
    r".*\.loss|(.*\.)?(model|functional_call|(binary_)?cross_entropy(_with_logits)?|(mse|l1|smooth_l1|huber|nll)_loss)"
)


def nothing_is_left_for_later(root: Path) -> Iterator[str]:
    for folder in ("batchlab", "configs", "scripts", ".ci"):
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
                    if re.search(r"\b(TODO|FIXME|XXX)\b", line):
                        yield f"{path.relative_to(root)}:{number}: {line.strip()}"


# Each rule, a tree that violates it, and a word that the rule's message must contain.
RED: list[tuple[Rule, dict[str, str], str]] = [
    (imports_point_down, {"training/loop.py": "from batchlab.instruments import health"}, "floor 4"),
    (
        imports_point_down,
        {"training/loop.py": "def f():\n    import batchlab.worker.execute"},
        "batchlab.worker.execute",
    ),
    (
        imports_point_down,
        {"training/loop.py": "if TYPE_CHECKING:\n    from batchlab import worker", "worker/__init__.py": ""},
        "worker",
    ),
    (imports_point_down, {"training/loop.py": "from ..worker.entry import work"}, "batchlab.worker.entry"),
    (imports_point_down, {"task.py": "from batchlab.targets import build"}, "batchlab.targets"),
    (
        imports_point_down,
        {"__init__.py": "from .worker import train", "task.py": "from batchlab import train"},
        "floor",
    ),
    (every_room_has_a_floor, {"cellar.py": ""}, "give 'cellar' a floor"),
    (every_room_has_a_floor, {"worker/execute.py": "from batchlab import anything"}, "batchlab.anything"),
    (nobody_imports_the_root, {"task.py": "import batchlab"}, "batchlab.task"),
    (science_is_arithmetic, {"science/statistics/pareto.py": "import time"}, "time"),
    (science_is_arithmetic, {"science/statistics/pareto.py": "def f():\n    from pathlib import Path"}, "pathlib"),
    (science_is_arithmetic, {"science/statistics/pareto.py": "from random import random"}, "random"),
    (science_is_arithmetic, {"science/statistics/pareto.py": "x = open('x')"}, "opens a file"),
    (
        science_is_arithmetic,
        {"science/statistics/pareto.py": "import torch\ntorch.cuda.synchronize()"},
        "knows a device",
    ),
    (
        science_is_arithmetic,
        {"science/statistics/pareto.py": "import numpy as np\nnp.random.normal()"},
        "global random state",
    ),
    (only_hydra_app_imports_hydra, {"sweep/grid.py": "def f():\n    from hydra.core import utils"}, "hydra.core"),
    (nobody_imports_data_or_models, {"worker/execute.py": "from batchlab.models.mlp import MLP"}, "_target_"),
    (nobody_imports_data_or_models, {"data/digits.py": "import batchlab.models"}, "_target_"),
    (report_opens_journals_anywhere, {"report/table.py": "def f():\n    import torch"}, "laptop"),
    (report_opens_journals_anywhere, {"report/table.py": "from batchlab.training import loop"}, "laptop"),
    (parents_need_no_torch, {"recording/journal.py": "from torch.utils import tensorboard"}, "torch"),
    (parents_need_no_torch, {"host/nvml.py": "def f():\n    import torch"}, "parent"),
    (parents_need_no_torch, {"tensorboard/events.py": "from torch.utils import tensorboard"}, "study's view"),
    (
        parents_need_no_torch,
        {"sweep/processes/preload.py": "import torch._dynamo"},
        "processes.preload -> torch._dynamo",
    ),
    (
        parents_need_no_torch,
        {
            "sweep/checking.py": "def f():\n    from batchlab.worker.check.examination import examine",
            "worker/check/examination.py": "from batchlab.task import T",
            "task.py": "import torch",
        },
        "sweep.checking -> batchlab.worker.check.examination -> batchlab.task -> torch",
    ),
    (parents_need_no_torch, {"hydra_app/plugins.py": "import hydra\nimport torchvision"}, "hydra_app"),
    (parents_need_no_torch, {"report/table.py": "from batchlab.task import T", "task.py": "import torch"}, "laptop"),
    (the_command_line_starts_light, {"cli/commands/train.py": "import torch"}, "batchlab.cli.commands.train -> torch"),
    (
        the_command_line_starts_light,
        {
            "cli/train.py": "from batchlab.worker import execute",
            "worker/execute.py": "from batchlab.task import T",
            "task.py": "import torch",
        },
        "batchlab.worker.execute -> batchlab.task -> torch",
    ),
    (the_command_line_starts_light, {"cli/__init__.py": "import hydra", "cli/train.py": ""}, "hydra"),
    (modules_are_short, {"worker/execute.py": "x = 1\n" * 301}, "301 lines"),
    (
        nobody_imports_in_a_circle,
        {"task.py": "import batchlab.targets", "targets.py": "import batchlab.task"},
        "circle",
    ),
    (
        nobody_imports_in_a_circle,
        {
            "report/fits/a.py": "from batchlab.report.claims import b",
            "report/claims/b.py": "",
            "report/claims/c.py": "if TYPE_CHECKING:\n    from batchlab.report.fits import d",
            "report/fits/d.py": "",
        },
        "the rooms of batchlab.report in a circle: claims, fits",
    ),
    (rooms_are_small, {f"science/a{n}.py": "" for n in range(LARGEST_ROOM + 1)}, "it is two rooms"),
    (one_idea_has_one_name, {"host/memory.py": "", "instruments/memory.py": ""}, "memory is the name of modules in"),
    (names_say_something, {"training/utils.py": ""}, "training/utils.py"),
    (names_say_something, {"base/loop.py": ""}, "batchlab/base"),
    (names_say_something, {"worker_helpers.py": ""}, "worker_helpers.py"),
    (public_names_hide_no_module, {"__init__.py": "from .sweep import run as sweep", "sweep/__init__.py": ""}, "sweep"),
    (public_names_hide_no_module, {"__init__.py": "__all__ = ['report']", "report/__init__.py": ""}, "report"),
    (
        errors_are_not_swallowed,
        {"worker/execute.py": "try:\n    f()\nexcept Exception:\n    pass"},
        "batchlab.worker.execute:3",
    ),
    (
        errors_are_not_swallowed,
        {"worker/execute.py": "try:\n    f()\nexcept (OSError, BaseException):\n    ..."},
        "swallows",
    ),
    (
        only_devices_know_their_kinds,
        {"worker/execute.py": "import torch\ntorch.cuda.synchronize()"},
        "batchlab.worker.execute:2",
    ),
    (
        only_devices_know_their_kinds,
        {"worker/execute.py": "if tensor.device.type == 'cuda':\n    f()"},
        "batchlab.worker.execute:1",
    ),
    (only_devices_know_their_kinds, {"instruments/a.py": "x = x.cuda()"}, "batchlab.instruments.a:1"),
    (options_are_asked_of_their_table, {"sweep/a.py": "x = ('batch_size', 'lr', 'seed', 'y')"}, "batch_size, lr, seed"),
    (options_are_asked_of_their_table, {"a.py": "x = frozenset({'lr', 'seed', 'model.width'})"}, "batchlab.a:1"),
    (options_are_asked_of_their_table, {"a.py": "x = [*('lr', 'seed'), 'device']"}, "device, lr, seed"),
    (options_are_asked_of_their_table, {"a.py": "x = {'lr': 'a', 'seed': 'b', 'device': f}"}, "lists options"),
    (options_are_asked_of_their_table, {"a.py": "x = ('lr', 'seed')"}, "batchlab.a:1 lists options: lr, seed"),
    (options_are_asked_of_their_table, {"a.py": "x = {'lr': c.lr, 'seed': f(c)}"}, "batchlab.a:1"),
    (options_are_asked_of_their_table, {"a.py": "x = [self.config.lr, str(config.precision)]"}, "lr, precision"),
    (options_are_asked_of_their_table, {"a.py": "x = (c.get('lr'), number(c['model.width']))"}, "lr, model"),
    (quantities_are_named_by_their_table, {"report/a.py": "x = runs['final.val/loss']"}, "types final.val/loss"),
    (quantities_are_named_by_their_table, {"a.py": "NAMES = ('train/loss',)"}, "batchlab.a:1 types train/loss"),
    (the_state_is_written_by_whom_it_names, {"instruments/a.py": "state.step += 1"}, "writes step"),
    (
        the_state_is_written_by_whom_it_names,
        {"worker/execute.py": "a, session.state.note = 1, 2"},
        "batchlab.worker.execute:1 writes note",
    ),
    (
        forward_and_loss_are_spelled_once,
        {"worker/execute.py": "x = task.loss(task.forward(net, batch), batch)"},
        "task.forward",
    ),
    (
        forward_and_loss_are_spelled_once,
        {"worker/check/a.py": "x = state.task.metrics(y, batch)"},
        "batchlab.worker.check.a:1",
    ),
    (forward_and_loss_are_spelled_once, {"instruments/a.py": "judge = self.task.loss"}, "self.task.loss"),
    (forward_and_loss_are_spelled_once, {"training/step.py": "y = self.model(batch[0])"}, "calls self.model"),
    (forward_and_loss_are_spelled_once, {"instruments/a.py": "y = functional_call(net, w, b)"}, "functional_call"),
    (forward_and_loss_are_spelled_once, {"cli/a.py": "y = F.cross_entropy(net.layers(x), z)"}, "F.cross_entropy"),
    (forward_and_loss_are_spelled_once, {"training/a.py": "y = nn.functional.mse_loss(x, z)"}, "mse_loss"),
    (nothing_is_left_for_later, {"worker/execute.py": "x = 1  # TO" + "DO: more"}, "batchlab/worker/execute.py:1"),
]
RULES = list(dict.fromkeys(rule for rule, _, _ in RED))


def named(value: object) -> str | None:
    return value.__name__ if callable(value) else None


@pytest.mark.parametrize("rule", RULES, ids=named)
def test_the_repository_keeps_the_rule(rule: Rule, repository: Path) -> None:
    assert list(rule(repository)) == []


@pytest.mark.parametrize(("rule", "files", "word"), RED, ids=named)
def test_a_rule_detects_its_violation(rule: Rule, files: dict[str, str], word: str, tmp_path: Path) -> None:
    for name, text in {"__init__.py": "", **files}.items():
        path = tmp_path / "batchlab" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    message = list(rule(tmp_path))

    assert any(word in sentence for sentence in message), message


def test_every_floor_is_that_of_a_room(repository: Path) -> None:
    assert {*FLOORS} == {room(module) for module in modules(repository)} - {""}


def test_no_module_of_a_parent_imports_torch(repository: Path) -> None:
    """As the rules above say of the sources, here of all imports, those of other packages included."""
    rooms = {*WITHOUT_TORCH, "cli"}
    names = [name for name in modules(repository) if room(name) in rooms]
    code = f"import importlib, sys\nfor name in {names}:\n    importlib.import_module(name)\n"
    code += "    if 'torch' in sys.modules:\n        sys.exit(f'{name} imports torch')"

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert {room(name) for name in names} == rooms


def test_lists_of_options_that_may_be_there_are_there(repository: Path) -> None:
    assert {*LISTED} == {(module, names) for module, _, names in _lists_of_options(repository)}


def test_what_is_allowed_stays_allowed(tmp_path: Path) -> None:
    """Otherwise a rule that rejects everything would pass above."""
    allowed = {
        "__init__.py": "from batchlab.task import Task\n__all__ = ['Task']",
        "errors.py": "",
        "config/__init__.py": "from batchlab.errors import BadRequest",
        "config/options.py": "NAMES = ('batch_size', 'lr', 'seed')",
        "config/plan.py": "from batchlab.config import RunConfig",
        "task.py": "if TYPE_CHECKING:\n    import torch",
        "data/digits.py": "import torch\nfrom batchlab import Task\nfrom .images import load",
        "data/images.py": "from batchlab import __version__",
        "science/pareto.py": "import numpy as np\nrng = np.random.default_rng(0)",
        "cli/train.py": "from batchlab import config\ndef run():\n    import torch\n    from batchlab import hydra_app",
        "hydra_app.py": "import hydra",
        "training/passes/evaluation.py": "state.validated = state.phase.name = 1",
        "report/words.py": "x = 'log best val/loss'",
        "training/losses.py": "def f(self, x):\n    return self.task.loss(self.task.forward(self.model, x), x)",
        "models/net.py": "def forward(self, x):\n    return self.model(x)",
        "worker/check/passes.py": "x = losses.terms(losses.outputs(batch), batch)\ny = losses.task.count(batch)",
        "sweep/checks.py": "from batchlab.worker import entry",
        "worker/entry.py": "def check():\n    import torch",
        "worker/preflight.py": "a, b = config.lr, c.get('seed')\ny = ('steps', 'examples', 'lr')",
        "worker/execute.py": "try:\n    f()\nexcept OSError:\n    z = (data.device, model.lr)",
    }
    for name, text in allowed.items():
        path = tmp_path / "batchlab" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    assert [sentence for rule in RULES for sentence in rule(tmp_path)] == []
