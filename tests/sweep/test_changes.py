"""What changed under a study is reported, and nothing else is."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from batchlab.errors import BadRequest
from batchlab.recording.code_files import code_files
from batchlab.recording.run_folder import read_record, write_record
from batchlab.records import Facts, RunRecord, RunStatus
from batchlab.sweep.changes import MadeWith, changes, refuse, stale

DATA = {"_target_": "my_data.load", "api_key": "sk-123", "sizes": (8, 8), "noise": 0.0, "cap": math.inf}
CODE = {"my_data.py": "d" * 16, "my_net.py": "a" * 16, "torch/optim/__init__.py": "b" * 16}
NOW = MadeWith(CODE, DATA, Facts(data_fingerprint="f" * 16, torch="2.14.0+cpu", device_name="A processor"))


def record(run_id: str = "bs8", device: str = "cpu", data: Any = DATA, **changed: Any) -> RunRecord:
    """A completed run made under `NOW`, apart from what is `changed` in its environment or its fields."""
    environment = {
        "packages": {"torch": "2.14.0+cpu", "numpy": "2.4"},
        "cpu": "A processor",
        "device_name": None if device == "cpu" else "NVIDIA A100",
        "code": CODE,
    }
    fields = {name: changed.pop(name) for name in ("data_fingerprint", "code_fingerprint") if name in changed}
    given: dict[str, Any] = {
        "run_id": run_id,
        "study": "fabricated",
        "status": RunStatus.COMPLETED,
        "config": {"device": device, "data": data, "model": {"_target_": "my_net.Net"}},
        "seed": 0,
        "batch_size": 8,
        "environment": environment | changed,
        "data_fingerprint": "f" * 16,
    }
    return RunRecord(**given | fields)


def now(**changed: Any) -> MadeWith:
    parts = {name: changed.pop(name) for name in ("code", "data") if name in changed}
    return dataclasses.replace(NOW, **parts, facts=dataclasses.replace(NOW.facts, **changed))


def test_nothing_is_reported_where_nothing_changed() -> None:
    assert changes([record("bs8"), record("bs32")], NOW) == []
    assert changes([], NOW) == []


def test_a_record_that_went_through_the_disk_is_the_same(tmp_path: Path) -> None:
    """Its secrets are masked there, its tuples are lists, and what is not finite is a word."""
    write_record(tmp_path, record())

    read = read_record(tmp_path)

    assert read is not None
    assert changes([read], NOW) == []
    assert changes([read], now(data_fingerprint="0" * 16)) != []  # or the groups would not have been found equal


def test_a_changed_file_names_the_points_that_were_run_with_the_other() -> None:
    old = {**CODE, "my_net.py": "0" * 16}
    existing = [record(f"bs{size}", code=old) for size in (8, 32, 64)] + [record("bs128")]

    assert changes(existing, NOW) == ["my_net.py changed since 3 points of this study were run (bs8, bs32 and 1 more)"]
    assert changes(existing[:1], NOW) == ["my_net.py changed since 1 point of this study was run (bs8)"]


def test_files_that_changed_together_are_one_sentence_and_others_another() -> None:
    both = record("bs8", code={**CODE, "my_net.py": "0" * 16, "my_data.py": "0" * 16})
    one = record("bs32", code={**CODE, "my_net.py": "0" * 16})

    assert changes([both], NOW) == ["my_data.py and my_net.py changed since 1 point of this study was run (bs8)"]
    assert changes([one, both], NOW) == [
        "my_data.py changed since 1 point of this study was run (bs8)",
        "my_net.py changed since 2 points of this study were run (bs32 and bs8)",
    ]


@pytest.mark.parametrize(
    "code",
    [
        None,  # a record of an older version
        {"my_net.py": "a" * 16},  # less was known
        {**CODE, "my_optimizer.py": "c" * 16},  # another optimizer is another point
        {**CODE, "torch/optim/__init__.py": "0" * 16},  # PyTorch's version tells
        {**CODE, "my_net.py": "***"},  # taken for a secret by its name, and masked
        "not a mapping",
    ],
)
def test_code_that_cannot_be_compared_is_not(code: Any) -> None:
    old = record(code=code, code_fingerprint="e" * 16)

    assert changes([old], NOW) == []


def test_another_pytorch_and_another_processor_are_reported_once_for_each_value() -> None:
    existing = [
        record("bs8", packages={"torch": "2.13.0+cpu"}, cpu=None),
        record("bs32", packages={"torch": "2.13.0+cpu"}, cpu="Another"),
        record("bs64", packages={"torch": "2.12.0+cpu"}, cpu=None),
        record("bs128", packages={}, cpu=None),
    ]

    assert changes(existing, NOW) == [
        "PyTorch 2.13.0+cpu -> 2.14.0+cpu since 2 points of this study were run (bs8 and bs32)",
        "PyTorch 2.12.0+cpu -> 2.14.0+cpu since 1 point of this study was run (bs64)",
        "device: Another -> A processor since 1 point of this study was run (bs32)",
    ]


def test_on_a_gpu_the_gpu_is_the_device_and_the_processor_is_not() -> None:
    old = record(device="cuda:1", cpu="Another processor")

    assert changes([old], now(device_name="NVIDIA A100")) == []
    assert changes([old], now(device_name=None)) == []
    assert changes([old], now(device_name="NVIDIA H100")) == [
        "device: NVIDIA A100 -> NVIDIA H100 since 1 point of this study was run (bs8)"
    ]


def test_a_study_of_two_gpus_continues_on_either_and_on_no_third() -> None:
    existing = [record("bs8", device="cuda"), record("bs32", device="cuda", device_name="NVIDIA H100")]

    assert changes(existing, now(device_name="NVIDIA A100")) == []
    assert changes(existing, now(device_name="NVIDIA H100")) == []
    assert len(changes(existing, now(device_name="NVIDIA L4"))) == 2


def test_changed_data_are_reported_for_the_points_with_this_data_group_alone() -> None:
    existing = [
        record("bs8", data_fingerprint="0" * 16),
        record("bs32", data_fingerprint="0" * 16, data={**DATA, "noise": 0.2}),
        record("bs64", data_fingerprint=None),
        record("bs128"),
    ]

    assert changes(existing, NOW) == [
        "the training or validation data changed since 1 point of this study was run (bs8)"
    ]
    assert changes(existing, now(data_fingerprint=None)) == []


def test_changed_data_are_reported_where_this_time_the_files_were_to_be_fetched() -> None:
    def group(**keys: Any) -> dict[str, Any]:
        return {"_target_": "batchlab.data.mnist.load", "folder": "data", "download": False, **keys}

    existing = [record("bs8", data=group()), record("bs32", data=group(folder="elsewhere"))]

    assert changes(existing, now(data=group(download=True), data_fingerprint="0" * 16)) == [
        "the training or validation data changed since 1 point of this study was run (bs8)"
    ]


def test_names_from_a_foreign_record_move_no_cursor() -> None:
    reported = changes([record("bs8\x1b[2J\n", packages={"torch": "\x1b[31m2"})], now(code={}))

    assert len(reported) == 1
    assert reported[0].isprintable()


def test_the_refusal_lists_each_difference_and_the_ways_on(tmp_path: Path) -> None:
    refusal = refuse(["my_net.py changed since then", "PyTorch 2.13 -> 2.14"], tmp_path / "mine")

    assert isinstance(refusal, BadRequest)
    first, _, rest = str(refusal).partition(": ")  # one line: the command line prints no more
    changed, moved, last = rest.split("; ")
    assert str(tmp_path / "mine") in first
    assert (changed, moved) == ("my_net.py changed since then", "PyTorch 2.13 -> 2.14")
    assert [word for word in ("accept_changed=true", "force=true", "study=...") if word not in last] == []


def test_final_results_of_files_edited_since_are_stale(tmp_path: Path) -> None:
    (tmp_path / "my_net.py").write_text("class Net: pass\n")
    (tmp_path / "my_data.py").write_text("def load(): pass\n")
    measured = code_files(["my_net.Net", "my_data.load"], here=tmp_path)
    records = [record("bs8", code=measured), record("bs32", code=measured)]
    unsure = record("bs64", code=None)
    assert set(measured) == {"my_net.py", "my_data.py"}

    assert stale([*records, unsure], tmp_path) == []
    assert stale([], tmp_path) == []

    (tmp_path / "my_net.py").write_text("class Net: deeper = True\n")
    assert stale(records, tmp_path) == ["my_net.py has changed since these runs were measured; --force runs them again"]
    assert stale([*records, unsure], tmp_path) == [
        "my_net.py has changed since 2 of these 3 runs were measured; --force runs them again"
    ]
    (tmp_path / "my_data.py").write_text("def load(more): pass\n")
    assert stale(records, tmp_path) == [
        "my_data.py and my_net.py have changed since these runs were measured; --force runs them again"
    ]


def test_final_results_looked_at_from_another_folder_are_not_stale(tmp_path: Path) -> None:
    assert stale([record()], tmp_path) == []


def test_looking_at_a_thousand_final_results_reads_the_files_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested = []
    monkeypatch.setattr("batchlab.sweep.changes.code_files", lambda targets, here: requested.append(targets) or {})

    stale([record(f"bs{i}") for i in range(1000)], tmp_path)

    assert requested == [("my_data.load", "my_net.Net")]


def test_records_with_a_strange_environment_are_no_error() -> None:
    strange = dataclasses.replace(record(), environment=json.loads('{"packages": 3, "code": [1], "cpu": {"a": 1}}'))

    assert changes([strange], NOW) == []
