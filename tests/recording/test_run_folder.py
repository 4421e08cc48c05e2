"""A run's folder: what is written comes back, and one process writes it."""

import fcntl
import json
import math
import os
import subprocess
import sys

import pytest
import yaml
from invented.written import config, record

from batchlab.errors import BadRequest
from batchlab.recording import run_folder
from batchlab.recording.run_folder import hold, holder, read_record, read_records, write_config, write_record
from batchlab.records import RunStatus

HOLDER = """
import sys
from pathlib import Path
from batchlab.recording.run_folder import hold
with hold(Path(sys.argv[1])):
    print("holding", flush=True)
    sys.stdin.read()
"""


def test_a_record_comes_back_as_it_was_not_finite_numbers_included(tmp_path):
    full = record(
        status=RunStatus.DIVERGED,
        config={"data": {"name": "inf", "sizes": [1, 2]}},
        overrides=("batch_size=8,32",),
        micro_batch_sizes=(16, 16),
        lr_scaled=math.inf,
        target={"metric": "val/loss", "value": 0.15, "reached": False, "train_seconds": math.inf, "step": None},
        final={"val/loss": math.inf, "train/loss": -math.inf},
        best={"val/loss": {"value": math.inf, "examples": 1440}},
        reason="zu groß \u2028",
    )

    write_record(tmp_path, full)

    assert read_record(tmp_path) == full
    json.loads((tmp_path / "record.json").read_text(), parse_constant=pytest.fail)


def test_a_loss_that_is_no_number_comes_back_as_none(tmp_path):
    write_record(tmp_path, record(final={"val/loss": math.nan}))

    read = read_record(tmp_path)

    assert read is not None
    assert math.isnan(read.final["val/loss"])


def test_a_folder_without_a_record_is_no_run(tmp_path):
    unreadable = []

    assert read_record(tmp_path, unreadable) is None
    assert read_record(tmp_path / "nowhere", unreadable) is None
    assert unreadable == []


def damaged(**changes):
    return json.dumps({**json.loads(json.dumps(record().to_dict())), **changes}).encode()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "Expecting value"),
        (b"\xff", "decode"),
        (b"[1]", "not a record"),
        (b"{}", "it has no 'run_id'"),
        (b"[" * 100_000, "nested too deeply"),
        (damaged(status="asleep"), "asleep"),
        (damaged(batch_size="eight"), "batch_size is 'eight'"),
        (damaged(final=[1]), "final is"),
        (damaged(final={"val/loss": "low"}), "val/loss is 'low'"),
        (damaged(best={"val/loss": 1}), "best is 1"),
        (damaged(overrides=3), "not iterable"),
        (damaged(environment=-0.5), "environment is -0.5"),
    ],
)
def test_a_damaged_record_is_reported_and_left_out(tmp_path, content, why):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "record.json").write_bytes(content)
    (tmp_path / "good").mkdir()
    write_record(tmp_path / "good", record())
    unreadable = []

    assert read_records(tmp_path, unreadable) == [record_as_written()]
    assert len(unreadable) == 1
    assert why in unreadable[0]
    assert "record.json cannot be read" in unreadable[0]


def record_as_written():
    made = record()
    return record(config={**made.config, "data": {**made.config["data"], "api_key": "***"}})


def test_a_record_of_a_newer_version_can_be_read(tmp_path):
    (tmp_path / "record.json").write_bytes(damaged(schema_version=9, invented_later={"a": 1}))

    read = read_record(tmp_path)

    assert read is not None
    assert (read.run_id, read.schema_version) == ("bs32-s0", 9)


def test_what_was_accepted_is_read_of_an_older_version_too_which_had_it_in_the_config(tmp_path):
    for name, accepted in (("yes", True), ("no", False)):
        (tmp_path / name).mkdir()
        older = record(config=config() | {"accept_changed": accepted, "jobs": 2}).to_dict()
        del older["changes_accepted"]
        (tmp_path / name / "record.json").write_text(json.dumps(older))

    assert read_record(tmp_path / "yes").changes_accepted is True
    assert read_record(tmp_path / "no").changes_accepted is False


def test_neither_record_nor_config_tells_a_secret(tmp_path):
    write_record(tmp_path, record(overrides=("data.api_key=sk-123",)))
    write_config(tmp_path, config())

    assert [path.name for path in tmp_path.iterdir() if "sk-123" in path.read_text()] == []
    output = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert output == {**config(), "data": {"_target_": "batchlab.data.digits.digits", "api_key": "***"}}


def test_studies_are_the_folders_that_hold_runs(tmp_path):
    for study, run in (("a", "bs8"), ("a", "bs32"), ("b", "bs8")):
        (tmp_path / study / run).mkdir(parents=True)
        write_record(tmp_path / study / run, record())
    (tmp_path / "a" / "tensorboard").mkdir()
    (tmp_path / "empty" / "bs8").mkdir(parents=True)
    (tmp_path / ".jobs").mkdir()
    (tmp_path / "file").touch()

    assert [folder.name for folder in run_folder.studies(tmp_path)] == ["a", "b"]
    assert [folder.name for folder in run_folder.run_folders(tmp_path / "a")] == ["bs32", "bs8"]
    assert run_folder.studies(tmp_path / "nowhere") == []


def test_a_run_held_by_another_process_is_refused_with_its_name_and_free_when_it_is_killed(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "holding\n"

        message = rf"{tmp_path} is being run by pid {other.pid} on host .+ since 20\d\d-.*Z: wait for it"
        with pytest.raises(BadRequest, match=message), hold(tmp_path):
            pytest.fail("two processes hold one run")

        other.kill()
    with hold(tmp_path):
        pass


def test_a_run_that_was_let_go_can_be_held_by_another_process_even_from_a_child_of_a_fork(tmp_path):
    descriptor, reported = os.pipe()
    with hold(tmp_path):
        child = os.fork()
        if child == 0:  # holds a copy of the lock's descriptor until it is told to go
            os.close(reported)
            os.read(descriptor, 1)
            os._exit(0)
    try:
        answer = subprocess.run(
            [sys.executable, "-c", HOLDER, str(tmp_path)], input="", capture_output=True, text=True, check=False
        )
    finally:
        os.close(reported)
        os.waitpid(child, 0)
        os.close(descriptor)

    assert answer.stdout == "holding\n", answer.stderr


def test_two_who_look_at_once_take_neither_for_the_one_that_runs_it(tmp_path):
    assert holder(tmp_path) is None  # nobody ever held it
    with hold(tmp_path):
        assert f"by pid {os.getpid()} on host" in holder(tmp_path)

    with (tmp_path / "lock").open("rb") as another:
        fcntl.flock(another, fcntl.LOCK_SH)
        assert holder(tmp_path) is None


def test_an_error_inside_lets_the_run_go(tmp_path):
    with pytest.raises(ZeroDivisionError), hold(tmp_path / "new"):
        raise ZeroDivisionError

    with hold(tmp_path / "new"):
        assert json.loads((tmp_path / "new" / "lock").read_text())["pid"] == os.getpid()
    assert (tmp_path / "new" / "lock").read_text() == ""
