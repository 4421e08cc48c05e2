"""The journal: whatever is cut off, what was whole stays, and what is appended next can be read."""

import json
import math
import resource
import signal

import pytest

from batchlab.errors import BatchlabError
from batchlab.recording.journal import Journal, read_journal
from batchlab.records import Measurement

THREE = [
    Measurement("val/loss", 2.302585092994046, step=0, examples=0, train_seconds=0.0),
    Measurement("val/Verlust\u2028", 0.1 + 0.2, step=45, examples=1440, train_seconds=0.52, low=0.2, high=0.4, n=360),
    Measurement("noise/scale_examples", math.inf, step=45, examples=1440, train_seconds=0.52, low=-math.inf, n=2),
]


def written(path, measurements):
    with Journal(path) as journal:
        for measurement in measurements:
            journal.append(measurement)
    return path.read_bytes()


def test_a_line_reads_as_the_contract_says(tmp_path):
    line = written(tmp_path / "metrics.jsonl", [Measurement("val/loss", 0.3121, 45, 1440, 0.52)]).decode()

    assert line == (
        '{"seq": 0, "name": "val/loss", "value": 0.3121, "step": 45, "examples": 1440, "train_seconds": 0.52, '
        '"low": null, "high": null, "n": null}\n'
    )


def test_a_journal_cut_at_any_byte_keeps_its_whole_lines_and_continues(tmp_path):
    path = tmp_path / "metrics.jsonl"
    content = written(path, THREE)
    more = Measurement("val/loss", 1.0, step=90, examples=2880, train_seconds=1.0)

    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        whole = THREE[: content[:cut].count(b"\n")]
        assert read_journal(path) == whole, cut

        broken = []
        written(path, [more])

        assert read_journal(path, broken) == [*whole, more], cut
        assert broken == []
        assert [json.loads(line)["seq"] for line in path.read_text().split("\n")[:-1]] == list(range(len(whole) + 1))


def test_what_is_not_finite_comes_back_and_is_json_for_every_parser(tmp_path):
    path = tmp_path / "metrics.jsonl"
    values = [math.nan, math.inf, -math.inf]
    content = written(path, [Measurement("x", v, 0, 0, 0.0, low=v, high=v, n=1) for v in values])

    assert [(m.value, m.low, m.high) for m in read_journal(path)][1:] == [(v, v, v) for v in values[1:]]
    first = read_journal(path)[0]
    assert math.isnan(first.value)
    assert math.isnan(first.low)
    stored = [json.loads(line, parse_constant=pytest.fail)["value"] for line in content.decode().splitlines()]
    assert stored == ["nan", "inf", "-inf"]


def test_a_broken_line_in_the_middle_is_left_out_and_reported(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = written(path, THREE).split(b"\n")
    for wrong in (b"{", b"", b"[]", b"\xff\xfe", b"null", b'{"seq": 1}', lines[1].replace(b"1440", b'"many"')):
        path.write_bytes(b"\n".join([lines[0], wrong, lines[2], b""]))
        broken = []

        assert read_journal(path, broken) == [THREE[0], THREE[2]], wrong
        assert len(broken) == 1
        assert "line 2" in broken[0]


def test_a_journal_goes_back_to_an_offset_and_measures_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with Journal(path) as journal:
        journal.append(THREE[0])
        offset = journal.offset
        journal.append(THREE[1])
    with Journal(path) as journal:
        assert journal.offset == path.stat().st_size
        journal.truncate(offset)
        journal.append(THREE[2])

        assert read_journal(path) == [THREE[0], THREE[2]]
        assert json.loads(path.read_text().splitlines()[1])["seq"] == 1


def test_an_offset_that_is_not_of_this_journal_is_refused(tmp_path):
    path = tmp_path / "metrics.jsonl"
    size = len(written(path, THREE))
    with Journal(path) as journal:
        for wrong in (size + 1, size - 1, 1):
            with pytest.raises(BatchlabError, match=rf"\({size} bytes\) has no line that begins at byte {wrong}"):
                journal.truncate(wrong)

    assert read_journal(path) == THREE


def test_a_restart_begins_an_empty_journal(tmp_path):
    path = tmp_path / "metrics.jsonl"
    written(path, THREE)

    with Journal(path, restart=True) as journal:
        assert journal.offset == 0
        journal.append(THREE[0])

    assert read_journal(path) == [THREE[0]]


def test_a_line_can_be_read_before_the_journal_is_closed(tmp_path):
    journal = Journal(tmp_path / "metrics.jsonl")
    journal.append(THREE[0])

    assert read_journal(tmp_path / "metrics.jsonl") == [THREE[0]]
    journal.close()
    journal.close()


def test_a_full_disk_ends_with_a_clear_error_and_whole_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    content = written(path, THREE[:1])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with Journal(path) as journal:
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) + 10, before[1]))
            with pytest.raises(BatchlabError, match=r"metrics\.jsonl cannot be written: .*; free some space"):
                journal.append(THREE[1])
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            assert path.read_bytes() == content
            journal.append(THREE[2])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)

    assert read_journal(path) == [THREE[0], THREE[2]]


def test_no_journal_holds_no_measurements(tmp_path):
    assert read_journal(tmp_path / "metrics.jsonl") == []
