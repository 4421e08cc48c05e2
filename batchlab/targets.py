"""What a `_target_` may name, and how it is called. Used in the worker and the preflight child only.

Hydra's `instantiate` is not used: most of what can harm (`torch.load`, `os._exit`, `pathlib.Path.write_text`)
passes its blocklist. Here a target must *be* the right thing: a class of the expected type from anywhere, or a
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
    """Calls the group's `_target_` with the group's own keys and what of `offered` its signature takes.

    `what` is the group's name in messages (`model`). Raises BadRequest for a target that is not a `kind` or does
    not return one, for a nested `_target_`, and for keys its signature does not take or lacks. What the user's
    code raises comes through as it is.
    """
    factory = resolve(group["_target_"], kind, what=what, trust=trust)
    given = {key: value for key, value in group.items() if key != "_target_"}
    for key, value in given.items():
        if _holds_target(value):
            raise BadRequest(f"{what}.{key} holds a _target_ of its own: only the group itself may name one")
    made = factory(**given | fitting(factory, given, offered, what=what))
    if not isinstance(made, kind):
        raise BadRequest(
            f"{what}._target_={group['_target_']} returned a {type(made).__name__}, and it must be a {kind.__name__}"
        )
    return made


def resolve(target: str, kind: type, *, what: str, trust: Sequence[str] = ()) -> Callable[..., Any]:
    """The class or function `target` names, once it is seen to be one that may be called for a `kind`."""
    found = _import(target, what)
    if isinstance(found, type):
        if issubclass(found, kind):
            return found
        raise BadRequest(f"{what}._target_={target} is a class, but no {kind.__name__}")
    if not inspect.isfunction(found):
        raise BadRequest(f"{what}._target_={target} is a {type(found).__name__}: name a {kind.__name__} or a function")
    # Where it was defined, not the name it was reached by: `my_net.os.system` is not of the user's folder.
    home = found.__module__ or "nowhere"
    trusted = any(home == package or home.startswith(package + ".") for package in (*TRUSTED, *trust))
    if not trusted and not _in_user_folder(found):
        raise BadRequest(
            f"{what}._target_={target} is a function of {home}, which is outside this folder: "
            f"wrap it in a file of your own, or add trust=[{home.split('.')[0]}] if you trust that package"
        )
    return found


def fitting(
    factory: Callable[..., Any], given: Mapping[str, object], offered: Mapping[str, object], *, what: str
) -> dict[str, object]:
    """What of `offered` the signature takes beside `given`; BadRequest where `given` does not fit it."""
    try:
        parameters = inspect.signature(factory).parameters
    except ValueError:  # written in C without a signature: the call itself will tell
        return {}
    named = [p for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    names = [p.name for p in named]
    for key in given:
        if key not in names and not takes_any:
            takes = ", ".join(name for name in names if name not in offered) or "no keys"
            raise BadRequest(f"unknown key '{what}.{key}'{did_you_mean(key, names) or f': {what} takes {takes}'}")
    filled = {name: offered[name] for name in names if name in offered and name not in given}
    for p in named:
        if p.default is p.empty and p.name not in given and p.name not in filled:
            raise BadRequest(f"{what} needs '{p.name}': add {what}.{p.name}=... to the command")
    return filled


def source_file(target: str) -> Path | None:
    """The file a target's code stands in, for the fingerprint of the code."""
    try:
        found = inspect.getsourcefile(_import(target, "_target_"))
    except (TypeError, OSError):
        return None
    return Path(found) if found else None


def _import(target: str, what: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    module, *attributes = target.split(".")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:  # the user's module was found, and something it imports was not
            raise
        raise BadRequest(
            f"{what}._target_={target}: no module '{module}' in this folder or among the installed packages"
        ) from None
    path = module
    for name in attributes:
        path = f"{path}.{name}"
        if not hasattr(found, name) and inspect.ismodule(found):
            try:
                # By its own name: `my_net.np.linalg` is a path of attributes, and no module is called so.
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
    # Itself or what it wraps: a decorator from elsewhere leaves the function the user's own.
    for file in {inspect.getsourcefile(code) for code in (function, inspect.unwrap(function))} - {None}:
        path = Path(str(file)).resolve()
        installed = path.is_relative_to(library) or {"site-packages", "dist-packages"} & set(path.parts)
        # Frozen modules have no file: `os.makedirs` is of "<frozen os>", which as a path is one in this folder.
        if path.is_file() and path.is_relative_to(here) and not installed:
            return True
    return False


def _holds_target(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "_target_" in value or any(_holds_target(entry) for entry in value.values())
    return isinstance(value, list | tuple) and any(_holds_target(entry) for entry in value)
