"""A stopped run resumes bitwise as if it had never stopped. Every step of every configuration: scripts/torture."""

import pytest
from torture import mutants, resuming
from torture.comparison import came_to, curve, differences
from torture.kth_call import quick
from torture.tiny import ADAMW, folder_of, stop_at, tiny, train

from batchlab.records import Measurement
from batchlab.worker.run_log import Listener

HARD = {"model": {"norm": True, "dropout": 0.3, "hidden_buffer": True}, "optimizer": ADAMW}


@pytest.fixture(autouse=True)
def _quick():
    with quick():
        yield


def words(config):
    optimizer = config["optimizer"]["_target_"].rpartition(".")[2]
    return f"{optimizer} {'/'.join(config['model'])} x{config['accumulate'] or 1} {config['precision']}"


@pytest.mark.parametrize(
    ("number", "config"), enumerate(resuming.COMBINATIONS), ids=[words(config) for config in resuming.COMBINATIONS]
)
def test_resuming_is_exact_whatever_trains(number, config, tmp_path):
    expected, steps = resuming.undisturbed(config, tmp_path)

    # Together they stop at every step of the run.
    assert steps == resuming.STEPS
    assert resuming.exact(config, (number % (steps - 1) + 1,), expected, tmp_path) is None


@pytest.mark.parametrize("config", resuming.TRAPS, ids=str)
def test_resuming_is_exact_where_it_is_hard(config, tmp_path):
    expected, steps = resuming.undisturbed(config, tmp_path)

    for stops in ((1,), (steps - 1,), (steps // 3, steps // 3)):
        assert resuming.exact(config, stops, expected, tmp_path) is None


@pytest.mark.parametrize("config", [resuming.TRAPS[-1], resuming.TRAPS[4]], ids=["by time", "at every step"])
def test_resuming_is_exact_after_a_kill_after_any_checkpoint_including_the_last_step(config, tmp_path):
    count, wrong = resuming.exact_after_each_checkpoint(config, tmp_path)

    assert wrong == []
    assert count > 1


def test_the_curves_of_a_resumed_run_are_drawn_once_and_complete(tmp_path):
    undisturbed, stopped = tiny(tmp_path / "a"), tiny(tmp_path / "b")
    train(undisturbed)
    for _ in range(2):
        train(stopped, stopping=stop_at(3))
    train(stopped)

    assert curve(folder_of(stopped), "val/loss") == curve(folder_of(undisturbed), "val/loss")
    assert len(curve(folder_of(stopped), "val/loss")) == 4
    assert len(list(folder_of(stopped).glob("events.*"))) == 1


def test_damaged_checkpoints_are_skipped_and_later_measurements_are_repeated(tmp_path):
    undisturbed, stopped = tiny(tmp_path / "a"), tiny(tmp_path / "b")
    train(undisturbed)
    train(stopped, stopping=stop_at(7))
    newest = sorted((folder_of(stopped) / "checkpoints").glob("*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    message = Said()

    record = train(stopped, listener=message)

    assert record.resumed_at == (6,)
    assert differences(came_to(folder_of(stopped)), came_to(folder_of(undisturbed))) == []
    assert [text.split(" ")[0] for text in message.texts] == ["checkpoint", "resumes"]
    assert message.texts[1] == "resumes from its checkpoint at step 6"


def test_a_run_whose_journal_does_not_match_its_checkpoint_starts_again(tmp_path):
    undisturbed, stopped = tiny(tmp_path / "a"), tiny(tmp_path / "b")
    train(undisturbed)
    train(stopped, stopping=stop_at(7))
    journal = folder_of(stopped) / "metrics.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'"value": 1.', b'"value": 2.', 1))
    message = Said()

    record = train(stopped, listener=message)

    assert record.resumed_at == ()
    assert differences(came_to(folder_of(stopped)), came_to(folder_of(undisturbed))) == []
    assert "of metrics.jsonl have changed since the checkpoint" in message.texts[0]
    assert message.texts[-1] == "starts again from its first step (no usable checkpoint)"


def test_a_finished_run_is_not_repeated(tmp_path):
    config = tiny(tmp_path)
    first = train(config)
    before = {path.name: path.read_bytes() for path in folder_of(config).iterdir()}

    assert train(config) == first
    assert {path.name: path.read_bytes() for path in folder_of(config).iterdir()} == before


class Said(Listener):
    """Records messages and counts measurements."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.taken: list[Measurement] = []

    def say(self, text: str) -> None:
        self.texts.append(text)

    def take(self, measurement: Measurement) -> None:
        self.taken.append(measurement)


@pytest.mark.parametrize(
    ("name", "mutant", "check"), mutants.MUTANTS[:13], ids=[name for name, _, _ in mutants.MUTANTS[:13]]
)
def test_something_missing_in_a_checkpoint_is_detected(name, mutant, check, tmp_path):
    assert mutants.killed(mutant, check, tmp_path) is None, name
