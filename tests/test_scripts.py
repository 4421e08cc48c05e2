"""The benchmarks and checks of `scripts/` run, with their smallest settings."""

import json
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.long  # benchmarks

TINY = {
    "bench_loop": ["--epochs=1", "--rounds=1", "--seconds=0", "--models=mlp", "--batch-sizes=256", "--at-most=1000"],
    "bench_sweep": ["--points=2", "--rounds=1", "--at-most=1000"],
    "bench_data": [
        "--examples=64",
        "--numbers=8",
        "--batch-sizes=16",
        "--rounds=1",
        "--at-most=1000",
        "--index-at-most=1000",
    ],
    "bench_instruments": ["--rounds=1", "epochs=1", "batch_size=256", "instruments.sharpness.products=3"],
}
ALLOWED = dict.fromkeys(("bench_loop", "bench_sweep", "bench_data"), "allowed 1000.00")
SAYS = ALLOWED | {"bench_instruments": "noise_scale_micro"}


@pytest.mark.parametrize(
    "script",
    [
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("bench_loop", "bench_instruments", "bench_sweep", "bench_data")
        ),
    ],
)
def test_a_benchmark_prints_its_figures_and_writes_them(script, repository, tmp_path):
    figures = tmp_path / "figures.json"
    ended = subprocess.run(
        [sys.executable, repository / "scripts" / script, *TINY[script], f"--json={figures}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert SAYS[script] in ended.stdout
    assert json.loads(figures.read_text())


@pytest.mark.slow
def test_the_benchmark_of_the_report_prints_both_times(repository, tmp_path):
    command = [sys.executable, repository / "scripts/bench_report", "4", "40"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"^4 runs, \d+ measurements\nterminal: [\d.]+ s.*\nwith figures: [\d.]+ s", ended.stdout)


def test_a_benchmark_that_is_beyond_its_bound_fails(repository, tmp_path):
    figures = tmp_path / "figures.json"
    command = [sys.executable, repository / "scripts/bench_loop", *TINY["bench_loop"][:-1], "--at-most=0.001"]
    ended = subprocess.run([*command, f"--json={figures}"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stderr
    assert "allowed 0.00" in ended.stdout
    assert json.loads(figures.read_text())["rows"][0]["batch_size"] == 256
