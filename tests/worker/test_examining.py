"""What a child replies to `check` and `verify` if the user's code fails."""

import sys
from pathlib import Path

import pytest
from plain_defaults import configured

from batchlab.config import RunConfig
from batchlab.worker.check.findings import Finding
from batchlab.worker.examining import compare_gradients, run_trials
from batchlab.worker.messages import Failed

SECRET = "tk-4711-abc"
DATA = """
import torch

def load(token, size):
    torch.empty(size, dtype=torch.uint8)
    raise RuntimeError(f"denied to {token}")
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """A config with a hidden value, which the error of its data quotes."""
    (tmp_path / "examined_data.py").write_text(DATA)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "examined_data", raising=False)
    return with_data(size=1)


def with_data(size: int) -> RunConfig:
    data = {"_target_": "examined_data.load", "token": SECRET, "size": size}
    return configured(data=data, hidden=["data.token"], device="cpu", batch_size=8, accumulate=2)


def test_the_findings_of_check_do_not_quote_a_hidden_value(config: RunConfig) -> None:
    found = list(run_trials(config))

    assert any(isinstance(each, Finding) and "denied to ***" in each.what for each in found)
    assert SECRET not in str(found)


def test_the_reason_that_verify_failed_does_not_quote_a_hidden_value(config: RunConfig) -> None:
    assert compare_gradients(config) == Failed("RuntimeError: denied to ***")


@pytest.mark.usefixtures("config")
def test_verify_out_of_memory_says_which_option_to_lower() -> None:
    found = compare_gradients(with_data(size=2**55))

    assert isinstance(found, Failed)
    assert found.reason.startswith("the whole batch does not fit (")
    assert found.reason.endswith("): use a smaller batch_size with the same accumulate")
