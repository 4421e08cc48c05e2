"""A noise scale that is named by its run is a number before anything is made of it."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher

from batchlab.cli.main import main
from batchlab.config import RunConfig
from batchlab.errors import BadRequest
from batchlab.hydra_app import compose, grid_composer
from batchlab.hydra_app.plugins import GridSweeper
from batchlab.recording.journal import Journal
from batchlab.recording.run_folder import METRICS, write_record
from batchlab.records import Measurement, RunRecord, RunStatus
from batchlab.sweep.identity import run_id

SIGNAL, NOISE, ADAM = "noise/squared_gradient_norm", "noise/gradient_variance", "noise/adam_scale_examples"
# |G|^2 and tr(Sigma) at three times: sums of 8 and 800, so the run's noise scale is 100; their ratios are 20, 200, 300.
RESOLVED = [(5.0, 100.0), (2.0, 400.0), (1.0, 300.0)]


def taken(parts: Sequence[tuple[float, float]] = RESOLVED, adam: Sequence[float] = (), error: float = 0.1):
    """Measurements as the instrument leaves them, each part known to within `error` of itself."""
    found = []
    for at, (signal, noise) in enumerate(parts):
        for name, value in ((SIGNAL, signal), (NOISE, noise)):
            half = error * abs(value)
            found.append(Measurement(name, value, at, 32 * at, float(at), value - half, value + half, 10))
    found += [Measurement(ADAM, value, at, 32 * at, float(at), 1.0, math.inf, 10) for at, value in enumerate(adam)]
    return found


def leave(folder: Path, measurements: Sequence[Measurement], status: RunStatus = RunStatus.COMPLETED) -> None:
    folder.mkdir(parents=True)
    with Journal(folder / METRICS) as journal:
        for measurement in measurements:
            journal.append(measurement)
    write_record(
        folder, RunRecord(run_id=folder.name, study=folder.parent.name, status=status, config={}, seed=0, batch_size=32)
    )


class KeptJobs(Launcher):
    """A launcher that keeps its jobs."""

    def setup(self, **given: object) -> None:
        """Nothing to prepare."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        self.jobs = job_overrides
        return []


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def asked(*overrides: str) -> RunConfig:
    return compose(["device=cpu", *overrides])


def test_a_run_named_by_its_folder_or_by_study_and_run_gives_the_ratio_of_its_sums(here: Path) -> None:
    leave(here / "runs/digits/one-1", taken())
    leave(here / "elsewhere/digits/one-1", taken([(1.0, 7.0)]))

    by_path = asked("lr_scaling=noise", "noise_scale=runs/digits/one-1")
    by_name = asked("lr_scaling=noise", "noise_scale=digits/one-1")
    of_another = asked("lr_scaling=noise", "noise_scale=digits/one-1", "runs_dir=elsewhere")

    assert (by_path.noise_scale, by_name.noise_scale, of_another.noise_scale) == (100.0, 100.0, 7.0)


def test_the_number_is_the_identity_wherever_it_came_from(here: Path) -> None:
    leave(here / "runs/digits/one-1", taken())

    named = asked("lr_scaling=noise", "noise_scale=runs/digits/one-1")

    assert run_id(named) == run_id(asked("lr_scaling=noise", "noise_scale=100"))
    assert run_id(named) != run_id(asked("lr_scaling=noise", "noise_scale=101"))


def test_four_digits_are_kept(here: Path) -> None:
    leave(here / "runs/digits/one-1", taken([(3.0, 1000.0)]))

    assert asked("lr_scaling=noise", "noise_scale=digits/one-1").noise_scale == 333.3


def test_surge_follows_adams_noise_scale_the_median_over_training(here: Path) -> None:
    leave(here / "runs/digits/one-1", taken(adam=[40.0, math.inf, 60.0, 90.0, 50.0]))

    both = {rule: asked(f"lr_scaling={rule}", "noise_scale=digits/one-1").noise_scale for rule in ("noise", "surge")}

    assert both == {"noise": 100.0, "surge": 60.0}


def test_a_grid_reads_a_run_once_and_says_what_it_found(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(here / "runs/digits/one-1", taken())
    leave(here / "runs/digits/two-2", taken([(1.0, 7.0)]))
    words = ["device=cpu", "batch_size=8,32", "lr_scaling=noise", "noise_scale=digits/one-1,digits/two-2,5"]

    with grid_composer(words) as composer:
        points, _ = composer.grid(words)

    found = [(point.config.batch_size, point.config.noise_scale) for point in points]
    assert found == [(8, 100.0), (8, 7.0), (8, 5.0), (32, 100.0), (32, 7.0), (32, 5.0)]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert said[0].startswith("lr_scaling=noise: noise_scale=100 examples (95% interval ")
    assert said[0].endswith("), from 3 measurements of digits/one-1")


def test_a_job_of_another_launcher_gets_the_number(here: Path) -> None:
    """The run it was read from may be another one by the time that the job starts."""
    leave(here / "runs/digits/one-1", taken())
    words = ["device=cpu", "lr_scaling=noise", "noise_scale=digits/one-1"]
    sweeper, launcher = GridSweeper("sweep"), KeptJobs()
    sweeper.launcher = launcher
    with grid_composer(words) as composer:
        (point,), _ = composer.grid(words)

    sweeper._elsewhere()([point])

    (here / "runs/digits/one-1/record.json").unlink()
    (job,) = launcher.jobs
    assert run_id(compose(job)) == point.run_id


def test_a_file_may_name_the_run_and_the_config_that_is_shown_has_the_number(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(here / "runs/digits/one-1", taken())
    (here / "mine/experiment").mkdir(parents=True)
    (here / "mine/experiment/noisy.yaml").write_text(
        "# @package _global_\nlr_scaling: noise\nnoise_scale: runs/digits/one-1\n"
    )

    assert main(["config", "device=cpu", "lr_scaling=noise", "noise_scale=digits/one-1"]) == 0
    assert "noise_scale: 100.0" in capsys.readouterr().out
    assert main(["sweep", "device=cpu", "experiment=noisy", "--config-dir", "mine", "--dry-run"]) == 0
    written = capsys.readouterr()
    assert "noise_scale=100 examples" in written.err
    assert "1 to run" in written.out


@pytest.mark.parametrize(
    ("rule", "named", "says"),
    [
        (
            "noise",
            "runs/digits/absent",
            "no run is there; give a number of examples above 0, or the folder",
        ),
        (
            "noise",
            "runs/digits",
            r"that is a study of \d runs; give one of them, such as noise_scale=runs/digits/adam-5$",
        ),
        ("noise", "digits/oom-3", "that run is oom, but a noise scale needs a completed run; give another"),
        ("noise", "digits/torn-6", r"runs/digits/torn-6/record.json cannot be read: "),
        (
            "noise",
            "digits/adam-5",
            "that run measured no noise/gradient_variance; train it again with instruments=full",
        ),
        (
            "surge",
            "digits/one-1",
            "that run measured no noise/adam_scale_examples; train it again with optimizer=adamw ",
        ),
        ("noise", "digits/lost-4", "that run did not resolve it, as the noise hides the gradient; raise instruments"),
        ("surge", "digits/lost-4", "that run did not resolve it"),
        ("noise", "nan", "it must be a number above 0, in examples, or null"),
        ("noise", "'\"120\"'", "no run is there; give a number of examples above 0"),
    ],
)
def test_a_run_that_has_none_is_refused_in_one_line(rule: str, named: str, says: str, here: Path) -> None:
    leave(here / "runs/digits/one-1", taken())
    leave(here / "runs/digits/oom-3", taken(), RunStatus.OOM)
    leave(here / "runs/digits/lost-4", taken([(0.1, 100.0), (-0.2, 90.0)], adam=[math.inf, math.inf, 3.0], error=3.0))
    leave(here / "runs/digits/adam-5", [m for m in taken(adam=[5.0]) if m.name != NOISE])
    leave(here / "runs/digits/torn-6", taken())
    (here / "runs/digits/torn-6/record.json").write_text('{"run_id": ')

    with pytest.raises(BadRequest, match=f"^noise_scale=.* is invalid: {says}") as refusal:
        asked(f"lr_scaling={rule}", "optimizer=adamw", f"noise_scale={named}")

    assert str(refusal.value).isprintable()


def test_a_rule_without_use_for_it_does_not_go_looking(here: Path) -> None:
    with pytest.raises(BadRequest, match=r"^lr_scaling=linear does not use noise_scale=runs/digits/absent: leave it"):
        asked("lr_scaling=linear", "noise_scale=runs/digits/absent")


def test_an_unknown_rule_is_reported_first(here: Path) -> None:
    with pytest.raises(BadRequest, match=r"^lr_scaling=noisy is invalid: .* did you mean 'noise'"):
        asked("lr_scaling=noisy", "noise_scale=runs/digits/absent")
