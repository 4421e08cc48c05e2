"""The studies on disk, for the commands that read them."""

from dataclasses import dataclass
from pathlib import Path

from batchlab.errors import BadRequest, did_you_mean
from batchlab.recording.run_folder import RECORD, read_records, run_folders, studies
from batchlab.records import RunRecord

RUNS_DIR = "runs"  # as in configs/config.yaml, whose reading would need a YAML parser
HOW_TO_START = "start one with `batchlab sweep batch_size=8,32,256`"


@dataclass(frozen=True)
class Study:
    """A folder of runs: the records that could be read, and messages about those that could not."""

    folder: Path
    records: tuple[RunRecord, ...]
    damaged: tuple[str, ...]  # a sentence for each

    @property
    def last_ended(self) -> str:
        """When the last of its runs ended, ISO 8601 in UTC; empty where none has."""
        return max((record.ended_at or "" for record in self.records), default="")


def read_study(folder: Path) -> Study:
    """Every run of a study; a folder that cannot be read is reported and otherwise ignored."""
    damaged: list[str] = []
    records = read_records(folder, damaged)
    return Study(folder, tuple(records), tuple(damaged))


def find_study(text: str, runs_dir: Path) -> Path:
    """The folder of a study, given by its name or path; the `BadRequest` for a wrong name lists those that exist."""
    if text.startswith("runs_dir="):
        raise BadRequest(f"{text} is an option of train and sweep: write --runs-dir {text.partition('=')[2]} here")
    for folder in (runs_dir / text, Path(text)):
        if folder.is_dir() and run_folders(folder):
            return folder
    for folder in (runs_dir / text, Path(text)):
        if text and folder.is_dir():
            raise BadRequest(_without_runs(text, folder))
    there = studies(runs_dir)
    if not there:
        raise BadRequest(f"there is no study '{text}': there are no runs yet in {runs_dir}/; {HOW_TO_START}")
    names = [folder.name for folder in there]
    near = did_you_mean(Path(text).name, names) or f"; the studies there are: {', '.join(names)}"
    raise BadRequest(f"there is no study '{text}' in {runs_dir}/{near}")


def _without_runs(text: str, folder: Path) -> str:
    """Why an existing folder is not a study."""
    if (folder / RECORD).is_file():
        return f"'{text}' is the folder of one run: give that of its study, {folder.parent}"
    if inside := studies(folder):
        return f"'{text}' is a folder of studies: give one of them: {', '.join(map(str, inside))}"
    return (
        f"'{text}' is a folder, but holds no runs: give a study's name or its folder, such as runs/digits-mlp "
        "(`batchlab list` shows the studies)"
    )


def last_written(folder: Path) -> float:
    """When a file of one of its runs was last written, in seconds since 1970."""
    files = (file for run in run_folders(folder) for file in (run, *run.iterdir()))
    return max((file.stat().st_mtime for file in files), default=0.0)
