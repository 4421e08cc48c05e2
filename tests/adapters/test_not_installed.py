"""Where a package is not installed, the message says what to install."""

import sys

import pytest

from batchlab import BadRequest, Task
from batchlab.training.user_errors import message_and_place


@pytest.fixture
def bare(monkeypatch):
    for name in ("lightning", "pytorch_lightning", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)


def test_the_adapters_say_what_to_install(bare):
    with pytest.raises(BadRequest, match=r"^Task\.from_lightning needs Lightning, .* here: pip install lightning$"):
        Task.from_lightning(object, object)
    with pytest.raises(BadRequest, match=r"^Task\.from_hugging_face needs .* here: pip install transformers$"):
        Task.from_hugging_face(object, [], [])


def test_the_error_of_an_import_says_what_to_install(bare):
    with pytest.raises(ModuleNotFoundError) as of_module:
        import lightning.pytorch  # noqa: F401
    with pytest.raises(ModuleNotFoundError) as of_another:
        import no_such_module  # noqa: F401

    assert message_and_place(of_module.value).endswith(": pip install lightning")
    assert "pip" not in message_and_place(of_another.value)
