"""The source files of a run's code and their hashes, found on the disk without importing them.

The result depends on the files alone, so it is the same in the parent of a sweep, in the preflight child (which has
imported every model of the grid) and in the worker.
"""

import ast
import hashlib
import importlib
import json
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from batchlab.config.options import WITH_TARGETS

OURS = "batchlab"
HEX_DIGITS = 16


def code_targets(config: Mapping[str, object]) -> tuple[str, ...]:
    """The `_target_` names in a config whose code defines a run: model, data, optimizer, schedule, instruments."""
    instruments = config.get("instruments")
    groups = [config.get(name) for name in WITH_TARGETS]
    groups += instruments.values() if isinstance(instruments, Mapping) else []
    named = {group.get("_target_") for group in groups if isinstance(group, Mapping)}
    return tuple(sorted(name for name in named if isinstance(name, str)))


def code_files(targets: Iterable[str], *, here: Path | None = None) -> dict[str, str]:
    """`relative/name.py` -> 16 hex digits of the file's SHA-256, sorted, for dotted `targets` resolved from `here`.

    For a target in the user's folders: its module, the packages that contain it, and all that these import, directly
    or indirectly, below the same entry of the path (`here`, the current folder, comes first). For a target that is
    installed or part of batchlab: only its module's file, since the version covers the rest.
    Modules that are not found and names made at run time (`import_module(name)`) are left out.
    """
    importlib.invalidate_caches()  # or a file that was just written might be missed
    path = [str(here or Path.cwd()), *(entry for entry in sys.path if entry)]
    files: dict[str, Path] = {}
    for target in targets:
        files |= _files_of(target, path)
    hashed = {name: _hash(files[name]) for name in sorted(files)}
    return {name: found for name, found in hashed.items() if found}


def code_fingerprint(files: Mapping[str, str]) -> str:
    """16 hex digits of the SHA-256 of all of `code_files`."""
    return _digest(json.dumps(sorted(files.items())).encode())


@dataclass(frozen=True)
class _Module:
    name: str  # dotted
    file: Path | None  # None: a package without an `__init__.py`
    inside: tuple[str, ...] | None  # the folders of a package's modules; None: not a package

    @property
    def root(self) -> Path | None:
        """The entry of the path that the module was found in."""
        if self.file is None:
            return None
        depth = self.name.count(".") + (self.inside is not None)
        return self.file.parents[depth] if depth < len(self.file.parents) else None

    @property
    def package(self) -> list[str]:
        """The package that relative imports start from."""
        return self.name.split(".")[: None if self.inside is not None else -1]


def _files_of(target: str, path: list[str]) -> dict[str, Path]:
    first = target.partition(".")[0]
    if not first.isidentifier():  # the record of another user may contain anything
        return {}
    if first == OURS:
        path = [str(Path(__file__).parents[2])]  # the running batchlab, not a folder of that name
    chain = _chain(target, path) or _chain(target, _path_of_an_editable(first))
    if not chain or chain[-1].root is None:
        return {}
    module, root = chain[-1], chain[-1].root
    if first == OURS or _is_installed(root):
        return _named([module], root)
    return _named(_closure(chain, root, [*path, str(root)]), root)


def _closure(start: list[_Module], root: Path, path: list[str]) -> list[_Module]:
    """`start` and what it imports below `root`, transitively."""
    seen: dict[str, _Module] = {}
    requested: set[str] = set()
    waiting = list(start)
    while waiting:
        module = waiting.pop()
        if module.name in seen or module.root != root:
            continue
        seen[module.name] = module
        for name in _imports(module):
            if name not in requested and name.partition(".")[0] not in (OURS, *sys.builtin_module_names):
                requested.add(name)
                waiting += _chain(name, path)
    return list(seen.values())


def _named(modules: Iterable[_Module], root: Path) -> dict[str, Path]:
    return {m.file.relative_to(root).as_posix(): m.file for m in modules if m.file is not None}


def _chain(dotted: str, path: list[str]) -> list[_Module]:
    """The modules at the start of a dotted name: `my_pkg` and `my_pkg.net` for `my_pkg.net.Net`."""
    found: list[_Module] = []
    within: Sequence[str] | None = path
    for name in dotted.split("."):
        if within is None:
            break
        # By the last part alone: to find `my_pkg.net`, the finder would need `my_pkg` imported.
        spec = PathFinder.find_spec(name, within)
        if spec is None:
            break
        found.append(_module(f"{found[-1].name}.{name}" if found else name, spec))
        within = found[-1].inside
    return found


def _module(name: str, spec: ModuleSpec) -> _Module:
    inside = spec.submodule_search_locations
    return _Module(
        name,
        Path(spec.origin) if spec.origin else None,
        None if inside is None else tuple(inside),
    )


def _path_of_an_editable(first: str) -> list[str]:
    """The path entry of a package in an editable installation, which only its own finder knows."""
    for finder in sys.meta_path:
        spec = finder.find_spec(first, None) if finder is not PathFinder else None
        root = _module(first, spec).root if spec is not None else None
        if root is not None:
            return [str(root)]
    return []


def _imports(module: _Module) -> Iterator[str]:
    """Dotted names that the module may import; `a.b` for `from a import b`, since b may be a module."""
    tree = _parsed(module.file)
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = node.level - 1
            if up >= len(module.package):  # beyond the top-level package: Python fails as well
                continue
            origin = module.package[: len(module.package) - up] if node.level else []
            home = ".".join([*origin, *([node.module] if node.module else [])])
            yield from (f"{home}.{alias.name}" for alias in node.names)


def _parsed(file: Path | None) -> ast.Module | None:
    if file is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the user's "\d", which Python shows when it runs
            return ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):  # an unreadable file imports nothing
        return None


def _is_installed(root: Path) -> bool:
    """Whether `root` contains installed packages or the standard library."""
    library = Path(sysconfig.get_path("stdlib")).resolve()
    return bool({"site-packages", "dist-packages"} & set(root.parts)) or root.resolve().is_relative_to(library)


def _hash(file: Path) -> str | None:
    try:
        return _digest(file.read_bytes())
    except OSError:
        return None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:HEX_DIGITS]
