"""Resolves and calls a `_target_`. Used only in the worker and the preflight process.

Hydra's `instantiate` is not used: most dangerous functions (`torch.load`, `os._exit`, `pathlib.Path.write_text`) are
not on its blocklist. Here a target must be of the right kind: a class of the expected type from anywhere, or a
function from the user's own folder, batchlab, torchvision.models or a trusted package, whose result is checked.
"""

import importlib
import inspect
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from batchlab.errors import BadRequest, did_you_mean

T = TypeVar("T")

TRUSTED = ("batchlab", "torchvision.models")


def build(
    group: Mapping[str, Any], kind: type[T], *, what: str, offered: Mapping[str, object], trust: Sequence[str] = ()
) -> T:
    """Calls the group's `_target_` with the group's own keys, and those of `offered` that its signature has.

    `what` is the group's name in messages (`model`). Raises BadRequest for a target that is not a `kind` or does not
    return one, for a nested `_target_`, and for unknown or missing keys. Errors of the user's code are not caught.
    """
    factory = resolve(group["_target_"], kind, what=what, trust=trust)
    given = {key: value for key, value in group.items() if key != "_target_"}
    made = factory(**given | fitting(factory, given, offered, what=what))
    if not isinstance(made, kind):
        returned = "None (is `return` missing?)" if made is None else _a(type(made))
        raise BadRequest(f"{what}._target_={group['_target_']} returned {returned}: it must return {_a(kind)}")
    return made


def resolve(target: str, kind: type, *, what: str, trust: Sequence[str] = ()) -> Callable[..., Any]:
    """The class or function that `target` names, after checking that it may be called for a `kind`."""
    found = _import(target, what)
    if isinstance(found, type):
        if issubclass(found, kind):
            return found
        raise BadRequest(f"{what}._target_={target} is a class, but not {_a(kind)}")
    return _checked_function(found, target, f"{_a(kind)} or a function", what=what, trust=trust)


def resolve_function(target: str, *, what: str, trust: Sequence[str] = ()) -> Callable[..., Any]:
    """The function that `target` names, after checking that it may be called."""
    return _checked_function(_import(target, what), target, "a function", what=what, trust=trust)


def _checked_function(found: Any, target: str, wanted: str, *, what: str, trust: Sequence[str]) -> Callable[..., Any]:
    if not inspect.isfunction(found):
        is_what = "a class" if isinstance(found, type) else _a(type(found))
        raise BadRequest(f"{what}._target_={target} is {is_what}: name {wanted}")
    # Where it was defined, not the name it was reached by: `my_net.os.system` is not from the user's folder.
    home = found.__module__ or "nowhere"
    trusted = any(home == package or home.startswith(package + ".") for package in (*TRUSTED, *trust))
    if not trusted and not _in_user_folder(found):
        raise BadRequest(
            f"{what}._target_={target} is a function of {home}, which is outside this folder: "
            f"wrap it in your own file, or add trust=[{home.split('.')[0]}] if you trust that package"
        )
    function: Callable[..., Any] = found
    return function


def fitting(
    factory: Callable[..., Any], given: Mapping[str, object], offered: Mapping[str, object], *, what: str
) -> dict[str, object]:
    """Those of `offered` that the signature has in addition to `given`; BadRequest if `given` does not match it."""
    for key, value in given.items():
        if _holds_target(value):
            raise BadRequest(f"{what}.{key} contains a _target_: only the group itself may have one")
    try:
        parameters = inspect.signature(factory).parameters
    except ValueError:  # written in C without a signature: the call will show
        return {}
    named = [p for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    names = [p.name for p in named]
    for key in given:
        if key not in names and not takes_any:
            near = did_you_mean(key, names).replace("'", f"'{what}.", 1)
            takes = ", ".join(name for name in names if name not in offered) or "no keys"
            raise BadRequest(f"unknown key '{what}.{key}'{near or f': {what} takes {takes}'}")
    filled = {name: offered[name] for name in names if name in offered and name not in given}
    for p in named:
        if p.default is p.empty and p.name not in given and p.name not in filled:
            raise BadRequest(f"{what}._target_ requires the argument '{p.name}': add {what}.{p.name}=...")
    return filled


def _a(kind: type) -> str:
    """`a Module`, `an Optimizer`."""
    return f"a{'n' * (kind.__name__[0] in 'AEIOUaeiou')} {kind.__name__}"


def _import(target: str, what: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    module, *attributes = target.split(".")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:  # the user's module was found, but not something it imports
            raise
        raise BadRequest(
            f"{what}._target_={target}: no module '{module}' in this folder or among the installed packages: "
            "check the name, and run the command in the folder of the file"
        ) from None
    path = module
    for name in attributes:
        path = f"{path}.{name}"
        if not hasattr(found, name) and inspect.ismodule(found):
            try:
                # By the module's own name: `my_net.np.linalg` is a path of attributes, not a module's name.
                found = importlib.import_module(f"{found.__name__}.{name}")
                continue
            except ModuleNotFoundError as error:
                if error.name != f"{found.__name__}.{name}":
                    raise
        if not hasattr(found, name):
            near = did_you_mean(name, [known for known in vars(found) if not known.startswith("_")])
            raise BadRequest(f"{what}._target_={target}: '{path.rpartition('.')[0]}' has no '{name}'{near}")
        found = getattr(found, name)
    return found


def _in_user_folder(function: Callable[..., Any]) -> bool:
    here, library = Path.cwd().resolve(), Path(sysconfig.get_path("stdlib")).resolve()
    # The function or what it wraps: with a decorator from elsewhere it is still the user's own.
    for file in {inspect.getsourcefile(code) for code in (function, inspect.unwrap(function))} - {None}:
        path = Path(str(file)).resolve()
        installed = path.is_relative_to(library) or {"site-packages", "dist-packages"} & set(path.parts)
        # Frozen modules have no file: `os.makedirs` is in "<frozen os>", which as a path would be in this folder.
        if path.is_file() and path.is_relative_to(here) and not installed:
            return True
    return False


def _holds_target(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "_target_" in value or any(_holds_target(entry) for entry in value.values())
    return isinstance(value, list | tuple) and any(_holds_target(entry) for entry in value)
