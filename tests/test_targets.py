"""Valid values of `_target_`: a class of the right type from anywhere, or a function from the user's own folder."""

import contextlib
import importlib
import pydoc
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from batchlab import Task, targets
from batchlab.errors import BadRequest

# Dangerous functions and classes: most of them are not on Hydra 1.3.8's blocklist (reference/reliability.md 3.2).
RISKY = """
torch.load torch.save torch.serialization.load torch.jit.load torch.hub.load torch.hub.load_state_dict_from_url
torch.package.PackageImporter torch.utils.cpp_extension.load torch.utils.cpp_extension.load_inline
torch.ops.load_library torch.utils.model_zoo.load_url torch.multiprocessing.spawn torch.distributed.run.main
torch.utils.collect_env.run torch.optim.SGD
numpy.load numpy.save builtins.open builtins.eval builtins.exec builtins.__import__
pathlib.Path pathlib.Path.write_text pathlib.Path.unlink pathlib.Path.rename
os.system os.popen os._exit os.abort os.kill os.makedirs os.removedirs os.renames os.execvp os.spawnv os.symlink os.link
os.remove os.environ os.environ.update os.path.os.system os.path.os.makedirs
shutil.rmtree shutil.copyfile shutil.copytree shutil.move shutil.unpack_archive tarfile.open zipfile.ZipFile
urllib.request.urlretrieve urllib.request.urlopen webbrowser.open multiprocessing.Process threading.Thread
asyncio.create_subprocess_shell setuptools.setup site.addsitedir runpy.run_path runpy.run_module codecs.open io.open
pip._internal.cli.main.main sqlite3.connect socket.create_connection subprocess.run subprocess.Popen pickle.load
pickle.loads marshal.loads shelve.open ctypes.CDLL logging.FileHandler logging.os.system logging.os.makedirs
importlib.import_module importlib.reload tempfile.mkdtemp code.interact timeit.timeit cProfile.run yaml.load
yaml.unsafe_load joblib.load sys.exit
batchlab.models.mlp.math.os batchlab.task.dataclass batchlab.targets.importlib.import_module
batchlab.targets.Path.write_text
""".split()  # noqa: SIM905 - eighty quoted names are harder to read


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder; modules imported from it are removed afterwards."""
    home = tmp_path / "project"
    home.mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(Path.cwd()))])
    known = set(sys.modules)
    yield home
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    importlib.invalidate_caches()


@contextlib.contextmanager
def calls() -> Iterator[list[object]]:
    """Records every code object and built-in function that is called inside."""
    seen: list[object] = []

    def profile(frame: types.FrameType, event: str, argument: object) -> None:
        if event == "call":
            seen.append(frame.f_code)
        elif event == "c_call":
            seen.append(argument)

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield seen
    finally:
        sys.setprofile(before)


def codes(found: Any) -> list[object]:
    """The entry in `calls` when `found` is called."""
    shown = [found, getattr(found, "__code__", None), getattr(found, "__func__", None)]
    if isinstance(found, type):
        shown += [getattr(getattr(found, maker), "__code__", None) for maker in ("__init__", "__new__")]
    return [code for code in shown if code is not None]


# Some are called by every import, so a call proves nothing.
EVERYDAY = {"builtins.__import__", "builtins.exec", "importlib.import_module", "marshal.loads", "pathlib.Path"}
EVERYDAY |= {"batchlab.targets.importlib.import_module"}


@pytest.mark.filterwarnings("ignore:Setuptools is replacing distutils")  # pip and setuptools, on their own import
@pytest.mark.parametrize("target", RISKY)
def test_what_can_harm_is_refused_and_not_called(target: str, folder: Path) -> None:
    harm = pydoc.locate(target)  # found without our import: the same object

    with calls() as seen, pytest.raises(BadRequest) as caught:
        targets.build({"_target_": target, "f": "x"}, nn.Module, what="model", offered={})

    assert target in str(caught.value)
    assert str(caught.value).isprintable()
    if target not in EVERYDAY:
        assert not [code for code in seen if any(code is risky for risky in codes(harm))]
    assert list(folder.iterdir()) == []


@pytest.mark.filterwarnings("ignore:Setuptools is replacing distutils")
def test_the_list_of_risks_is_long_and_names_things_that_are_there() -> None:
    there = [target for target in RISKY if pydoc.locate(target) is not None]

    assert len(there) >= 80


@pytest.mark.parametrize(
    "inner",
    ["os.system", "os.makedirs", "rmtree", "torch.load", "np.load", "Path", "Path.write_text", "Path.unlink", "shell"],
)
def test_an_alias_in_the_users_own_file_does_not_make_it_the_users_own(inner: str, folder: Path) -> None:
    write(
        folder / "my_alias.py",
        "import os, shutil, torch\nimport numpy as np\nfrom pathlib import Path\nfrom shutil import rmtree\n"
        "shell = os.system\n",
    )

    with pytest.raises(BadRequest, match=rf"^model\._target_=my_alias\.{inner} is a "):
        targets.build({"_target_": f"my_alias.{inner}"}, nn.Module, what="model", offered={})


@pytest.mark.parametrize("target", ["os.makedirs", "os.popen", "site.addsitedir", "runpy.run_path", "codecs.open"])
def test_a_frozen_module_of_python_is_not_a_file_in_this_folder(target: str, folder: Path) -> None:
    function: Any = pydoc.locate(target)
    write(folder / "os.py", "")  # nor one with the same name

    with pytest.raises(BadRequest, match="outside this folder"):
        targets.resolve(target, nn.Module, what="model")

    assert callable(function)


@pytest.mark.usefixtures("folder")
def test_python_itself_is_not_the_users_own_even_in_its_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(sysconfig.get_path("stdlib")).parent)

    with pytest.raises(BadRequest, match="outside this folder"):
        targets.resolve("shutil.rmtree", nn.Module, what="model")


# What is allowed

MY_NET = """
import functools
import torch
from torch import nn
from batchlab import Task

class Net(nn.Module):
    def __init__(self, input_shape, num_classes, width=3):
        super().__init__()
        self.width, self.shape, self.classes = width, input_shape, num_classes

def make(width, *, task=None):
    net = nn.Linear(width, 1)
    net.task = task
    return net

def anything(**keys):
    net = nn.Identity()
    net.keys = keys
    return net

@torch.no_grad()
def quiet(width):
    return nn.Linear(width, 1)

@functools.wraps(torch.load)
def disguised(*args, **keys):
    return nn.Identity()

def number():
    return 7

def nothing():
    7

def load():
    x, y = torch.zeros(4, 2), torch.tensor([0, 1, 2, 0])
    return Task.classification((x, y), (x, y))

def broken(width):
    raise KeyError("mine")

answer = 42
make_partial = functools.partial(make, 3)
"""
OFFERED = {"input_shape": (1, 8, 8), "num_classes": 10, "task": "the task", "device": "cpu"}


@pytest.fixture
def my_net(folder: Path) -> Path:
    write(folder / "my_net.py", MY_NET)
    return folder


def build(target: str, trust: tuple[str, ...] = (), **keys: Any) -> Any:
    return targets.build({"_target_": target, **keys}, nn.Module, what="model", offered=OFFERED, trust=trust)


@pytest.mark.usefixtures("my_net")
def test_a_class_gets_its_own_keys_and_what_of_the_offer_its_signature_takes() -> None:
    net = build("my_net.Net", width=5)

    assert (net.width, net.shape, net.classes) == (5, (1, 8, 8), 10)


@pytest.mark.usefixtures("my_net")
def test_a_key_of_the_users_wins_over_an_offered_one() -> None:
    assert build("my_net.Net", num_classes=3).classes == 3


@pytest.mark.usefixtures("my_net")
def test_a_function_of_the_users_folder_is_called_with_what_it_takes() -> None:
    net = build("my_net.make", width=4)

    assert (net.in_features, net.task) == (4, "the task")


@pytest.mark.usefixtures("my_net")
def test_a_function_that_takes_any_key_is_offered_none_by_accident() -> None:
    assert build("my_net.anything", depth=2).keys == {"depth": 2}


@pytest.mark.usefixtures("my_net")
@pytest.mark.parametrize(("target", "keys"), [("my_net.quiet", {"width": 2}), ("my_net.disguised", {"f": "x"})])
def test_a_decorator_from_elsewhere_leaves_a_function_the_users_own(target: str, keys: dict[str, Any]) -> None:
    assert isinstance(build(target, **keys), nn.Module)


@pytest.mark.usefixtures("my_net")
def test_data_is_loaded_by_a_function_that_returns_a_task() -> None:
    task = targets.build({"_target_": "my_net.load"}, Task, what="data", offered={"device": "cpu"})

    assert task.model_args["num_classes"] == 3


def test_a_package_in_the_users_folder_is_the_users_own(folder: Path) -> None:
    write(folder / "my_pkg" / "__init__.py", "")
    write(folder / "my_pkg" / "nets" / "small.py", "from torch import nn\ndef make():\n    return nn.Identity()\n")

    assert isinstance(build("my_pkg.nets.small.make"), nn.Identity)


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("torch.nn.Linear", nn.Module),
        ("batchlab.models.mlp.MLP", nn.Module),
        ("torch.optim.SGD", torch.optim.Optimizer),
        ("batchlab.data.digits.load", Task),
    ],
)
def test_a_class_of_the_right_type_may_come_from_anywhere(target: str, kind: type, folder: Path) -> None:
    assert targets.resolve(target, kind, what="model") is pydoc.locate(target)


# What is refused, and the messages


@pytest.mark.usefixtures("my_net")
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("my_net.number", "model._target_=my_net.number returned an int: it must return a Module"),
        ("my_net.nothing", "model._target_=my_net.nothing returned None (is `return` missing?): it must return a Mod"),
        ("my_net.answer", "model._target_=my_net.answer is an int: name a Module or a function"),
        ("my_net.make_partial", "is a partial: name a Module or a function"),
        ("my_net.Task", "model._target_=my_net.Task is a class, but not a Module"),
        ("my_net.Nett", "model._target_=my_net.Nett: 'my_net' has no 'Nett': did you mean 'Net'?"),
        ("my_net.qqqqq", "model._target_=my_net.qqqqq: 'my_net' has no 'qqqqq'"),
        ("my_net.functools.qqqqq", "'my_net.functools' has no 'qqqqq'"),
        ("my_net.Net.qqqqq", "'my_net.Net' has no 'qqqqq'"),
        ("not_there_at_all.Net", "no module 'not_there_at_all' in this folder or among the installed packages: check"),
        ("torch.nn.Linaer", "'torch.nn' has no 'Linaer': did you mean 'Linear'?"),
    ],
)
def test_a_target_that_is_not_the_right_thing_is_refused_with_the_reason(target: str, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        build(target)

    assert message in str(caught.value)


@pytest.mark.usefixtures("my_net")
def test_an_optimizer_has_its_article() -> None:
    with pytest.raises(BadRequest, match=r"my_net\.Net is a class, but not an Optimizer$"):
        targets.resolve("my_net.Net", torch.optim.Optimizer, what="optimizer")


@pytest.mark.usefixtures("my_net")
@pytest.mark.parametrize(
    ("target", "keys", "message"),
    [
        ("my_net.Net", {"widht": 3}, "unknown key 'model.widht': did you mean 'model.width'?"),
        ("my_net.Net", {"zzzzz": 3}, "unknown key 'model.zzzzz': model takes width"),
        ("my_net.number", {"zzzzz": 3}, "unknown key 'model.zzzzz': model takes no keys"),
        ("my_net.make", {}, "model._target_ requires the argument 'width': add model.width=..."),
        ("my_net.Net", {"width": {"_target_": "os.system"}}, "model.width contains a _target_"),
        ("my_net.Net", {"width": [1, {"a": [{"_target_": "x.y"}]}]}, "model.width contains a _target_"),
        ("my_net.anything", {"any": {"deep": {"_target_": "x.y"}}}, "model.any contains a _target_"),
    ],
)
def test_keys_that_do_not_fit_the_signature_are_refused(target: str, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        build(target, **keys)

    assert message in str(caught.value)


@pytest.mark.usefixtures("my_net")
def test_what_the_users_code_raises_comes_through_as_it_is() -> None:
    with pytest.raises(KeyError, match="mine"):
        build("my_net.broken", width=1)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("raise RuntimeError('boom')", RuntimeError, "boom"),
        ("import not_there_at_all", ModuleNotFoundError, "No module named 'not_there_at_all'"),
        ("from torch import not_there_at_all", ImportError, "not_there_at_all"),
        ("def f(:", SyntaxError, "invalid syntax"),
    ],
)
@pytest.mark.parametrize("place", ["failing.py", "holder/failing.py"])
def test_a_file_that_fails_to_import_shows_its_own_error(
    text: str, error: type[Exception], message: str, place: str, folder: Path
) -> None:
    write(folder / place, text)

    with pytest.raises(error, match=message) as caught:
        build(place.removesuffix(".py").replace("/", ".") + ".Net")

    assert not isinstance(caught.value, BadRequest)


# The user's folder, and installed packages inside it

MAKE = "from torch import nn\ndef make():\n    return nn.Identity()\nclass Net(nn.Module):\n    pass\n"


@pytest.mark.parametrize("place", ["elsewhere", "project/.venv/lib/python3.12/site-packages", "project/dist-packages"])
def test_a_function_of_an_installed_package_needs_trust_and_a_class_does_not(
    place: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder.parent / place / "their_pkg" / "__init__.py", MAKE)
    monkeypatch.syspath_prepend(folder.parent / place)

    with pytest.raises(BadRequest, match=r"is a function of their_pkg, which is outside this folder: .*their_pkg\]"):
        build("their_pkg.make")

    assert isinstance(build("their_pkg.make", trust=("their_pkg",)), nn.Identity)
    assert isinstance(build("their_pkg.Net"), nn.Module)


def test_trust_in_one_package_is_no_trust_in_another_of_like_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder.parent / "elsewhere" / "their_pkg_too" / "__init__.py", MAKE)
    monkeypatch.syspath_prepend(folder.parent / "elsewhere")

    with pytest.raises(BadRequest, match="outside this folder"):
        build("their_pkg_too.make", trust=("their_pkg", "their"))


def test_a_function_without_a_home_is_refused(folder: Path) -> None:
    write(folder / "my_maker.py", "space = {'__name__': None}\nexec('def made(): ...', space)\nmade = space['made']\n")

    with pytest.raises(BadRequest, match="outside this folder"):
        build("my_maker.made")


def test_offers_are_made_by_name_only() -> None:
    def takes(a: int, b: int = 2, *, c: int, d: int = 4) -> None: ...

    fitting: Callable[..., dict[str, Any]] = targets.fitting

    assert fitting(takes, {"a": 1}, {"b": 20, "c": 30, "e": 50}, what="model") == {"b": 20, "c": 30}
