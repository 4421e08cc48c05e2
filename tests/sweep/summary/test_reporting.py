"""What a sweep makes of its study at the end, and that nothing of it can fail the sweep."""

import io
import json
from pathlib import Path

from batchlab.report.claims import CLAIMS
from batchlab.sweep.summary.reporting import report


def output(study: Path) -> tuple[str, str]:
    """What was reported on stdout and on stderr."""
    stdout, stderr = io.StringIO(), io.StringIO()
    report(study, width=None, stdout=stdout, stderr=stderr)
    return stdout.getvalue(), stderr.getvalue()


def failed_run(study: Path) -> None:
    folder = study / "run"
    folder.mkdir(parents=True)
    record = {"run_id": "run", "study": "s", "status": "failed", "config": {"lr": 0.1}, "seed": 0, "batch_size": 8}
    (folder / "record.json").write_text(json.dumps(record))


def test_it_writes_the_files_and_says_where_they_are_in_a_few_lines(tmp_path: Path) -> None:
    failed_run(tmp_path / "study")

    reported, complaint = output(tmp_path / "study")

    assert complaint == ""
    assert len(reported.splitlines()) == 3
    assert f"Claims: {len(CLAIMS)} not tested." in reported
    assert str(tmp_path / "study" / "report.html").rpartition("/")[0] in reported
    assert {path.name for path in (tmp_path / "study").iterdir()} >= {"report.html", "report.md", "report.json"}


def test_what_goes_wrong_is_one_line_that_says_what_to_type(tmp_path: Path) -> None:

    reported, complaint = output(tmp_path / "gone")

    assert reported == ""
    assert len(complaint.splitlines()) == 1
    assert f"there is no folder {tmp_path / 'gone'}" in complaint
    assert f"`batchlab report {tmp_path / 'gone'}` makes it again" in complaint
