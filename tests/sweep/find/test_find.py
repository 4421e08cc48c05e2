"""`batchlab find` from the command line: real processes under a real limit, and what it says of them."""

import json
import os
import shlex
import sys
from dataclasses import replace

import psutil
import pytest

from batchlab.cli.commands.find import parse_bytes
from batchlab.cli.main import main
from batchlab.cli.option_help import described_options, groups
from batchlab.config.commands import COMMANDS
from batchlab.errors import BadRequest
from batchlab.science.memory.largest_fit import Outcome, Probe, largest_fit, speeds
from batchlab.science.scaling.knee import Knee
from batchlab.sweep.find.find_sentences import sentences
from batchlab.sweep.find.find_table import comparison
from batchlab.sweep.find.search import Search

pytestmark = pytest.mark.long  # each search starts many processes

MIB = 2**20
NETS = """
import os
import signal
from pathlib import Path

import torch
from torch import nn


class Wide(nn.Module):
    '''A quarter of a MiB for each example, saved for backward, and as much again in the backward pass.'''

    def __init__(self, numbers=2**16):
        super().__init__()
        self.numbers = numbers
        self.scale = nn.Parameter(torch.ones(10))

    def forward(self, x):
        wide = (x.flatten(1)[:, :1] * self.scale[:1]).expand(-1, self.numbers).exp()
        return wide.sum(1, keepdim=True) * self.scale


class Greedy(Wide):
    def forward(self, x):
        torch.empty(2**30, dtype=torch.uint8)
        return super().forward(x)


class Buggy(Wide):
    def forward(self, x):
        if len(x) > 10:
            raise ValueError("this model knows ten examples at most")
        return super().forward(x)


class Interrupts(Wide):
    '''Ctrl-C in the middle of a probe that would not end.'''

    def forward(self, x):
        if len(x) > 10:
            Path("pid").write_text(str(os.getpid()))
            os.kill(int(Path("search").read_text()), signal.SIGINT)
            while True:
                pass
        return super().forward(x)
"""


@pytest.fixture
def find(lab, tmp_path, capfd):
    """Runs the command line in a user's folder; its exit code, what it reported, and the files it kept."""
    (tmp_path / "nets.py").write_text(NETS)
    lab.server.warm_up()

    def find(line: str):
        code = main(["find", "device=cpu", *shlex.split(line)])
        reported = capfd.readouterr()
        kept = [json.loads(file.read_text()) for file in sorted((tmp_path / "runs").glob("*/find/*.json"))]
        return code, reported, kept

    return find


@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_it_ends_with_a_size_that_ran_twice_the_next_that_did_not_and_says_what_to_type(times, find, capfd):
    answers = []
    for _ in range(times):
        # 8 MiB an example: the process's own pages come and go by 1 MiB or two.
        code, reported, (kept,) = find("memory_limit=320MiB model._target_=nets.Wide model.numbers=1048576 threads=1")
        assert code == 0
        answers.append(kept["largest"])
        outcomes = {size: [p["outcome"] for p in kept["probes"] if p["size"] == size] for size in range(64)}
        # 304 MiB for a probe, of which each example takes 8, and PyTorch's first steps some.
        assert 20 <= kept["largest"] <= 38
        assert outcomes[kept["largest"]] == ["fits", "fits"]
        assert kept["larger"]["size"] == kept["largest"] + 1
        assert set(outcomes[kept["largest"] + 1]) == {"oom"}
        assert abs(kept["prediction_error"]) < 0.15
        assert kept["predicted_from"] == [2, 16]
        assert kept["memory_model_bytes"]["per_example"] == pytest.approx(8 * MIB, rel=0.02)
        assert kept["account_bytes"]["saved"]["per_example"] == pytest.approx(4 * MIB, rel=0.01)
        assert [timing["size"] for timing in kept["timings"]] == [s for s in (2, 4, 8, 16, 32) if s < kept["largest"]]
        assert {"config", "environment", "headroom", "knee"} <= kept.keys()
        assert f"Largest micro-batch: {kept['largest']}. It fitted twice" in reported.out
        assert f"micro-batch {kept['largest']}: fits" in reported.err

    assert len(set(answers)) == 1
    following = next(line for line in reported.out.splitlines() if line.startswith("Next: ")).removeprefix("Next: ")
    assert "model._target_=nets.Wide" in following
    assert main([*shlex.split(following)[1:], "--dry-run"]) == 0
    assert "run    batch_size=8 " in capfd.readouterr().out


def test_where_nothing_fits_it_says_so_and_exits_with_3(find):
    code, reported, (kept,) = find("memory_limit=60MiB model._target_=nets.Greedy")

    assert code == 3
    assert "Nothing fits: not even a micro-batch of 1 example (in forward: " in reported.out
    assert "Next:" not in reported.out
    assert (kept["status"], kept["largest"]) == ("nothing fits", None)


def test_an_error_of_the_users_code_ends_it_and_is_not_taken_for_lack_of_memory(find, tmp_path):
    code, reported, (kept,) = find("memory_limit=60MiB model._target_=nets.Buggy")

    assert code == 3
    assert (
        "The search failed at 16, not from a lack of memory: ValueError: this model knows ten examples" in reported.out
    )
    assert (kept["status"], kept["largest"]) == ("failed", None)
    (log,) = (tmp_path / "runs").glob("*/find/*.log")
    assert 'raise ValueError("this model knows ten examples at most")' in log.read_text()


def test_ctrl_c_leaves_no_process_and_keeps_what_is_known(find, tmp_path):
    (tmp_path / "search").write_text(str(os.getpid()))

    code, reported, (kept,) = find("memory_limit=60MiB model._target_=nets.Interrupts")

    assert code == 130
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))
    assert (kept["status"], [probe["size"] for probe in kept["probes"]]) == ("interrupted", [2])
    assert "interrupted; 1 probe saved in" in reported.err


def test_each_combination_is_searched_for_itself_and_compared(find):
    code, reported, kept = find("memory_limit=60MiB at_most=4 model=mlp,cnn accumulate=1,3")

    assert code == 0
    assert [(k["largest"], k["larger"], k["prediction_error"]) for k in kept] == [(4, None, None)] * 4
    assert {k["account_bytes"]["weights"] for k in kept} == {4 * 26122, 4 * 6138}
    rows = [line for line in reported.out.splitlines() if line.startswith("model=")][-4:]
    assert [row.split()[:4] for row in rows] == [
        ["model=mlp", "accumulate=1", "4", "4"],
        ["model=mlp", "accumulate=3", "4", "12"],
        ["model=cnn", "accumulate=1", "4", "4"],
        ["model=cnn", "accumulate=3", "4", "12"],
    ]


@pytest.mark.slow
def test_the_cnn_in_600_mib_twice(find):
    """The line of the issue as it is typed."""
    answers = []
    for _ in range(2):
        code, reported, (kept,) = find("memory_limit=600MiB model=cnn")
        sys.stdout.write(reported.out)
        assert code == 0
        assert kept["larger"]["outcome"] == "oom"
        assert kept["largest"] < kept["larger"]["size"] <= 1.04 * kept["largest"]
        assert abs(kept["prediction_error"]) < 0.15
        answers.append(kept["largest"])
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("line", "reported"),
    [
        ("memory_limit=8", "memory_limit=8 is invalid: give one number with its unit, such as memory_limit=600MiB"),
        ("memory_limit=", "memory_limit= is invalid"),
        ("memory_limit=GiB", "memory_limit=GiB is invalid"),
        ("memory_limit=8Gib/s", "memory_limit=8Gib/s is invalid"),
        ("memory_limit=-1GiB", "memory_limit=-1GiB is invalid"),
        ("memory_limit=nanGiB", "memory_limit=nanGiB is invalid"),
        ("memory_limit=1e3MiB", "memory_limit=1e3MiB is invalid"),
        ("memory_limit=4GiB,8GiB", "memory_limit=4GiB,8GiB is invalid: give one number"),
        ("memory_limit=100kB", "nothing trains in less than 1MiB"),
        ("memory_limit=2000TiB", "no machine has that"),
        ("memory_limit=1000TiB", "memory_limit is larger than 90% of this machine's available memory"),
        ("memory_limit=1GiB memory_limit=2GiB", "memory_limit is given twice"),
        ("at_most=0", "at_most=0 is invalid: give an integer of at least 1"),
        ("at_most=1.5", "at_most=1.5 is invalid"),
        ("batch_size=8", "batch_size=8 is invalid: find searches for the batch size"),
        ("++micro_batch_size=8", "find searches for the batch size"),
        ("jobs=2", "jobs is for runs, and `batchlab find` makes none: leave it out"),
        ("--dry-run", "dry_run is for runs, and `batchlab find` makes none"),
        ("memry_limit=8GiB", "unknown key 'memry_limit'"),
        ("hydra/launcher=joblib", "hydra/launcher=... is for runs, but find searches on this machine"),
    ],
)
def test_a_bad_request_is_one_line_and_nothing_is_tried(line, reported, lab, tmp_path, capsys):
    assert main(["find", "device=cpu", *shlex.split(line)]) == 2

    shown = capsys.readouterr()
    assert reported in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""
    assert not (tmp_path / "runs").exists()


def test_the_examples_of_the_help_name_what_there_is():
    options, examples = groups(), [line.split()[2:] for line in COMMANDS["find"].examples.splitlines()]
    assert len(examples) >= 5
    for argument in (argument for example in examples for argument in example):
        key, _, value = argument.partition("=")
        root = key.partition(".")[0]
        assert root in {*described_options(), "memory_limit", "at_most"}, argument
        assert key not in options or set(value.split(",")) <= set(options[key]), argument


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("600MiB", 600 * MIB),
        ("8GiB", 2**33),
        ("1.5gib", 3 * 2**29),
        ("10GB", 10**10),
        ("1TiB", 2**40),
        ("2 MB", 2_000_000),
    ],
)
def test_sizes_are_read_with_their_units(text, size):
    assert parse_bytes(text) == size


def test_a_size_without_its_unit_is_refused():
    with pytest.raises(BadRequest, match="such as memory_limit=600MiB"):
        parse_bytes("600")


# What is reported, of searches that were made up.


def searched(lab, oracle, *, at_most=4096, device="cpu", limit_given=False, **changes) -> Search:
    """A search over an oracle, at its end."""
    config = replace(lab.point("batch_size=1000000000000", "model=cnn").config, device=device)
    search = Search(config, "", ("model=cnn", "lr=0.1"), 1000 * MIB, limit_given, None, at_most)
    search.found = largest_fit(oracle, at_most=at_most)
    search.probes = list(search.found.probes)
    search.status = search.found.status
    for name, value in changes.items():
        setattr(search, name, value)
    return search


def probe(size: int, outcome: Outcome = Outcome.FITS, **changes) -> Probe:
    fits = outcome is Outcome.FITS
    values = {"allowed_bytes": 950 * MIB, "peak_bytes": (50 + size) * MIB if fits else None, "n_train": 1437}
    return Probe(size=size, outcome=outcome, phase="" if fits else "backward", **{**values, **changes})


def test_the_sentences_of_a_search_on_a_gpu(lab):
    search = searched(lab, lambda size: probe(size, Outcome.FITS if size <= 900 else Outcome.OOM), device="cuda")
    search.knee = Knee(128, 64, 256, 512, 12_345.6)

    assert list(sentences(search)) == [
        "No memory_limit was given, so the limit is the free memory of the device. 5% of it was kept free: a probe "
        "could use 950.0 MiB on cuda.",
        "Largest micro-batch: 896. It fitted twice, each time for three steps and a validation; 912 did not (out of "
        "memory in backward).",
        "Predicted beforehand, from probes of 2, 16, 128: 900 (95%: 900 to 900), 0.4% too high.",
        "Memory: 50.0 MiB + 1,024.0 KiB x micro-batch (fitted to 5 probes, residual SD 0.0 MiB).",
        "Throughput knee: 128 (95%: 64 to 256), the smallest size tried within 10% of the best, 12,346 examples/s at "
        "512.",
        f"Saved in {search.file}.",
        "Next: batchlab sweep batch_size=8,32,128,512 model=cnn lr=0.1",
    ]


def test_what_data_of_fewer_examples_is_worth_is_reported_and_the_next_command_does_not_exceed_it(lab):
    search = searched(lab, lambda size: probe(size, Outcome.FITS if size <= 900 else Outcome.OOM, n_train=100))

    reported = list(sentences(search))

    assert "The data has 100 training examples: larger batches repeat them." in reported
    assert reported[-1].startswith("Next: batchlab sweep batch_size=4,16,64 ")


def test_a_kernel_limit_is_not_called_memory(lab):
    search = searched(lab, lambda size: probe(size, Outcome.FITS if size <= 100 else Outcome.KERNEL_LIMIT))

    assert "102 did not (kernel limit in backward)." in "\n".join(sentences(search))


def test_the_bound_is_reported_where_it_ended_the_search(lab):
    reported = "\n".join(sentences(searched(lab, probe, at_most=64)))

    assert "no size above at_most=64 was tried." in reported
    assert "too high" not in reported


def test_what_is_not_the_same_each_time_or_does_not_rise_steadily_is_reported(lab):
    once: list[int] = []

    def oracle(size: int) -> Probe:
        once.append(size)
        fits = size < 900 and (size != 896 or once.count(896) == 1)
        return probe(size, Outcome.FITS if fits else Outcome.OOM)

    search = searched(lab, oracle)
    assert "At the limit the outcome varies: 896 fitted once and failed once." in "\n".join(sentences(search))

    search.timings = [probe(64, Outcome.OOM)]
    assert "Memory does not rise monotonically: 64 did not fit, although larger sizes did." in list(sentences(search))


def test_where_all_sizes_fit_it_does_not_say_that_their_bytes_did_not_grow(lab):
    reported = list(sentences(searched(lab, probe, at_most=4)))

    assert "No prediction was made: the sizes that were tried reach at_most=4, and all of them fit." in reported
    assert not [sentence for sentence in reported if "did not grow" in sentence]


def test_speeds_of_company_are_not_compared(lab):
    search = searched(lab, lambda size: probe(size, shared_machine=True), at_most=64, knee=Knee(8, 8, 8, 16, 100.0))

    assert "Throughput knee: not resolved, since other points used the machine" in "\n".join(sentences(search))
    assert comparison([search])[-1].split()[-3] == "-"


def test_a_speed_is_of_all_micro_batches_of_the_median_step():
    timed = [probe(10, accumulate=4, step_seconds=(0.1, 0.2, 0.4, 0.2, 0.2, 0.2, 0.5)), probe(10, step_seconds=(9.0,))]

    speed = speeds([*timed, probe(20, Outcome.OOM)])[10]

    assert (speed.value, speed.low, speed.high, speed.n) == (200.0, 80.0, 400.0, 7)


def test_an_oracle_that_nothing_fits_has_its_reason_reported(lab):
    search = searched(lab, lambda size: probe(size, Outcome.OOM, reason="no room"))
    assert "Nothing fits: not even a micro-batch of 1 example (in backward: no room)." in list(sentences(search))
