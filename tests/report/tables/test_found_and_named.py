"""Results of `batchlab find` support a claim; groups are named by the options that a reader looks for."""

import json
from pathlib import Path

import pytest
from invented.folders import write_run

from batchlab.printable import signed
from batchlab.report.advice.recommendation import Recommendation
from batchlab.report.claims import CLAIMS, judge_claims
from batchlab.report.claims.claim import Claim
from batchlab.report.claims.settings import equal_except
from batchlab.report.fits.fits import fits
from batchlab.report.render.content import what_is_missing
from batchlab.report.report import Report
from batchlab.report.tables.find_results import searches
from batchlab.report.tables.groups import as_name, distinguishing, groups
from batchlab.report.tables.study import read_study
from batchlab.science.statistics.verdicts import Verdict


def probe(size: int, step_seconds: list[float], **more: object) -> dict[str, object]:
    return {"size": size, "outcome": "fits", "accumulate": 1, "step_seconds": step_seconds, **more}


def find_file(study: Path, probes: list[dict[str, object]], **changes: object) -> None:
    values = {"status": "found", "config": {"precision": "fp32"}, "largest": 64, "probes": probes, **changes}
    (study / "find").mkdir(parents=True)
    (study / "find" / "fp32.json").write_text(json.dumps(values))


def largest_fit(study: Path) -> Claim:
    (claim,) = judge_claims(read_study(study), [claim for claim in CLAIMS if claim.id == "largest-fit"])
    return claim


def around(seconds: float) -> list[float]:
    return [seconds * (1 + 0.001 * i) for i in range(-4, 5)]


def test_a_search_reports_how_fast_the_largest_that_fits_runs_and_decides_nothing(tmp_path: Path) -> None:
    # 32 examples in 0.04 s are 800 a second, 64 in 0.02 s four times as many; 128 has too few steps for a speed.
    write_run(tmp_path, 8)
    probes = [probe(16, around(0.04)), probe(32, around(0.04)), probe(64, around(0.02)), probe(128, [0.01])]
    find_file(tmp_path, probes, largest=128)

    claim = largest_fit(tmp_path)

    assert claim.verdict is Verdict.NOT_TESTED
    note = "in fp32: micro-batches of 128 fit, and 64 run at 4.00x the examples per second of 32"
    assert note in claim.why


def test_a_speed_measured_next_to_other_points_or_far_below_the_limit_is_not_reported(tmp_path: Path) -> None:
    for name, more in (("shared", {"shared_machine": True}), ("alone", {})):
        write_run(tmp_path / name, 8)
        probes = [probe(32, around(0.04)), probe(64, around(0.02), **more)]
        find_file(tmp_path / name, probes, largest=64 if more else 200)
        assert "micro-batches" not in largest_fit(tmp_path / name).why


def test_of_an_exact_search_only_the_timings_are_speeds(tmp_path: Path) -> None:
    find_file(tmp_path, [probe(64, around(1.0))], exact=True, timings=[probe(32, around(0.04))])

    (search,) = searches(tmp_path)

    assert {size: speed.value for size, speed in search.speeds.items()} == {32: pytest.approx(800)}


@pytest.mark.parametrize("bad", [{"size": 0}, {"size": 8, "outcome": "what"}, {"step_seconds": [0.0]}, {"size": "8"}])
def test_an_impossible_probe_is_reported(tmp_path: Path, bad: dict[str, object]) -> None:
    find_file(tmp_path, [probe(8, around(1.0)) | bad])
    damaged: list[str] = []
    assert searches(tmp_path, damaged) == ()
    assert len(damaged) == 1


def varied(study: Path, precision: bool = True) -> None:
    for size in (8, 32, 128):
        for seed in range(2):
            full = {"instruments": {"noise_scale": {"_target_": "a.B", "draws": 20}}}
            write_run(study, size, seed, config=full)
            write_run(study, size, seed, config={"precision": "bf16"} if precision else {})


def test_an_instrument_names_no_group_that_another_option_names(tmp_path: Path) -> None:
    varied(tmp_path / "both")
    varied(tmp_path / "alone", precision=False)

    both, alone = read_study(tmp_path / "both"), read_study(tmp_path / "alone")

    assert {group.name for group in groups(both)} == {"precision=fp32", "precision=bf16"}
    labels = [label for label, _ in equal_except(both.runs, both.requested.astype(str), ())]
    assert sorted(labels) == ["precision=bf16", "precision=fp32"]
    assert any("instruments.noise_scale.draws=20" in group.name for group in groups(alone))
    assert {group.short_name for group in groups(alone)} == {""}


def test_a_setting_left_out_of_the_trends_is_named(tmp_path: Path) -> None:
    for size in (2, 8, 32, 128):
        write_run(tmp_path, size)
    for size in (8, 32):
        write_run(tmp_path, size, config={"precision": "bf16"})
    study = read_study(tmp_path)
    report = Report(study, (), fits(study), Recommendation("", "", "", ""))

    assert [missing.what for missing in what_is_missing(report)] == [
        "Trends over batch sizes leave out precision=bf16: fewer than 60% of the 4 sizes."
    ]


def test_two_ways_to_request_the_same_thing_are_equal(tmp_path: Path) -> None:
    for size, count in ((8, None), (32, 1)):
        write_run(tmp_path, size, config={"accumulate": count, "reference_batch_size": size})
    write_run(tmp_path, 128, config={"accumulate": None, "micro_batch_size": 64, "lr_scaling": "linear"})

    requested = read_study(tmp_path).requested

    assert requested["accumulate"].tolist() == [1, 1, None]
    assert requested["reference_batch_size"].tolist() == [None, None, 32]


def test_of_many_options_a_name_has_those_that_are_unusual() -> None:
    options = ["lr_scaling", "warmup", "precision", "model.width"]
    usual = ('"sqrt"', "0", '"fp32"', "128")
    keys = [
        usual,
        ('"none"', *usual[1:]),
        ('"sqrt"', "0.1", '"fp32"', "128"),
        ('"sqrt"', "0", '"bf16"', "128"),
        ('"sqrt"', "0", '"bf16"', "16"),
    ]

    assert [as_name(settings) for settings in distinguishing(options, keys).values()] == [
        "lr_scaling=sqrt",
        "lr_scaling=none",
        "lr_scaling=sqrt warmup=0.1",
        "lr_scaling=sqrt precision=bf16",
        "lr_scaling=sqrt precision=bf16 model.width=16",
    ]
    # Of a few options all are named, as is the usual one, which would otherwise have no name.
    assert distinguishing(options[1:3], [key[1:3] for key in keys[1:4]]) == {
        ("0", '"fp32"'): {"warmup": "0", "precision": "fp32"},
        ("0.1", '"fp32"'): {"warmup": "0.1", "precision": "fp32"},
        ("0", '"bf16"'): {"warmup": "0", "precision": "bf16"},
    }


def test_rounding_is_no_effect() -> None:
    assert [signed(value) for value in (-2.53e-16, 0.0312, -1e-9)] == ["+0", "+0.0312", "-1e-09"]
