"""A sweep typed on a login node without a GPU, for jobs that have one."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra._internal.callbacks import Callbacks
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext

from batchlab.errors import BadRequest
from batchlab.hydra_app import compose
from batchlab.hydra_app.front import grid_composer
from batchlab.hydra_app.plugins import GridSweeper
from batchlab.records import Unknown
from batchlab.sweep.identity import run_id
from batchlab.sweep.processes.server import WarmServer

TINY = ("threads=1", "default_epochs=1", "report=false")


class SlurmLauncher(Launcher):
    """Of the name of submitit's, which keeps its jobs: there is no Slurm here."""

    jobs: Sequence[Sequence[str]] = ()

    def setup(self, **given: object) -> None:
        """Nothing to prepare."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        self.jobs = job_overrides
        return []


class LocalLauncher(SlurmLauncher):
    """Of the name of the one whose jobs run here."""


@pytest.fixture(autouse=True)
def login_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No driver answers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("batchlab.host.device_choice.read_driver", lambda: Unknown("no driver"))
    monkeypatch.setattr("batchlab.hydra_app.plugins.shutil.which", lambda program: f"/usr/bin/{program}")


def typed(launcher: Launcher, *words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`batchlab sweep ...` with that launcher, as far as Hydra's part of it goes."""
    monkeypatch.setattr(Plugins, "instantiate_launcher", lambda *_, **__: launcher)
    chosen = ["hydra/launcher=basic"]
    with grid_composer(chosen) as composer:
        sweeper = GridSweeper("sweep")
        context = HydraContext(config_loader=composer.loader, callbacks=Callbacks())
        sweeper.setup(hydra_context=context, task_function=lambda _: None, config=composer.master)
        sweeper.sweep([*TINY, *words])


def test_cuda_is_kept_for_the_jobs_and_data_model_and_sizes_are_checked_here(
    server: WarmServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    slurm = SlurmLauncher()

    with pytest.raises(SystemExit) as end:
        typed(slurm, "device=cuda", "precision=tf32", "batch_size=64,128", monkeypatch=monkeypatch)

    assert end.value.code == 3  # the jobs, which nobody runs here, have left no answer
    reported = capfd.readouterr().err
    assert reported.count("device=cuda is on the machines of the jobs: data, model and sizes are checked here") == 1
    assert [job.count("device=cuda") for job in slurm.jobs] == [1, 1]
    with pytest.raises(BadRequest, match="batch_size=5000 is larger than the training set"):
        typed(slurm, "device=cuda", "batch_size=5000", monkeypatch=monkeypatch)


def test_the_run_of_a_job_has_the_id_that_it_was_given_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the machine that has the GPU, `cuda` is what it is here."""
    points: list[str] = []
    monkeypatch.setattr(
        "batchlab.hydra_app.plugins.run_sweep", lambda given, *_, **__: points.extend(point.run_id for point in given)
    )
    typed(SlurmLauncher(), "device=cuda", "batch_size=64", monkeypatch=monkeypatch)
    monkeypatch.setattr("batchlab.hydra_app.front.pinned", lambda config: config)

    assert points == [run_id(compose([*TINY, "device=cuda", "batch_size=64"]))]


def test_auto_is_refused_for_jobs_on_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    reported = "device=auto chooses by the devices of this machine, but the jobs of hydra/launcher=basic run on others"
    with pytest.raises(BadRequest, match=reported + ": add device=cuda or device=cpu"):
        typed(SlurmLauncher(), "device=auto", monkeypatch=monkeypatch)


def test_jobs_on_this_machine_have_its_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []
    monkeypatch.setattr(
        "batchlab.hydra_app.plugins.run_sweep",
        lambda given, *_, **__: found.extend(point.config.device for point in given),
    )
    typed(LocalLauncher(), "device=auto", monkeypatch=monkeypatch)

    assert found == ["cpu"]
    with pytest.raises(BadRequest, match="device=cuda was requested, but no NVIDIA driver"):
        typed(LocalLauncher(), "device=cuda", monkeypatch=monkeypatch)
