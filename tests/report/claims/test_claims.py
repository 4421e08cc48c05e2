"""The claims on studies with a planted truth, and on studies that cannot show much."""

import math
import shlex
from collections.abc import Callable
from typing import Any

import pytest
from invented.claims import PLANTS, wiggle
from invented.tables import N_TRAIN, missed, reached, run, study

from batchlab.hydra_app import grid_composer
from batchlab.report.claims import CLAIMS, judge_claims
from batchlab.report.claims.claim import Claim
from batchlab.report.tables.study import Study
from batchlab.science.statistics.verdicts import Verdict

SGD = "torch.optim.SGD"


def judged(study: Study, name: str) -> Claim:
    """One claim, as if it were the only one: Holm's correction is tested elsewhere."""
    (claim,) = judge_claims(study, [claim for claim in CLAIMS if claim.id == name])
    return claim


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_truth_is_supported_its_opposite_contradicted_and_noise_neither(name: str) -> None:
    true, false, unclear = (judged(PLANTS[name](truth), name) for truth in (1, -1, 0))

    assert true.verdict is Verdict.SUPPORTED, true.why
    assert true.seeds_needed is not None
    assert true.seeds_needed <= 8
    assert false.verdict is Verdict.CONTRADICTED, false.why
    assert unclear.verdict in (Verdict.INCONCLUSIVE, Verdict.NOT_TESTED), unclear.why


def test_every_claim_of_science_has_its_row_in_order() -> None:
    assert [claim.id for claim in judge_claims(study([]))] == list(PLANTS)


HELD = 2.0**30  # the data, on the device


@pytest.mark.parametrize("separate", [True, False])
def test_bytes_that_bf16_saves_are_judged_without_the_data_on_the_device(separate: bool) -> None:
    def of(precision: str, growth: float, seed: int) -> dict[str, Any]:
        measured = {"memory/peak_allocated_bytes": HELD + growth}
        measured |= {"memory/peak_growth_bytes": growth} if separate else {}
        return run(32, seed, measured, requested={"precision": precision})

    runs = [of(*how, seed) for how in (("fp32", 2.0**24), ("bf16", 2.0**23)) for seed in range(3)]
    (claim,) = [claim for claim in judge_claims(study(runs)) if claim.id == "mixed-precision"]

    whole = math.log((HELD + 2**24) / (HELD + 2**23))
    (effect,) = [evidence.effect.interval.value for evidence in claim.evidence if "peak" in evidence.what]
    assert effect == pytest.approx(math.log(2) if separate else whole)


def one_seed() -> Study:
    return study([run(b, 0, {"val/loss": 0.1 * b, "train/loss": 0.1}) for b in (8, 32, 128)])


def one_batch_size() -> Study:
    return study([run(32, s, {"val/loss": 0.2, "gap/loss": 0.1}) for s in range(5)])


def all_failed() -> Study:
    nothing = {"steps": 0, "examples": 0, "epochs": 0.0, "train_seconds": 0.0, "n_train": None, "parameters": None}
    ends = ("failed", "oom", "diverged", "killed")
    return study([run(b, s, status=ends[s], **nothing) for b in (8, 32) for s in range(4)])


def half_finished() -> Study:
    runs = [run(b, s, {"val/loss": 0.2 + b / 1e4}) for b in (8, 32, 128) for s in range(3)]
    return study([*runs[:5], *(run(b, 2, status="running", steps=3, examples=3 * b) for b in (32, 128))])


def not_finite() -> Study:
    values = {"val/loss": float("nan"), "speed/examples_per_second": 0.0, "gap/loss": float("inf")}
    return study([run(b, s, values, train_seconds=0.0) for b in (8, 32) for s in range(3)])


@pytest.mark.parametrize("made", [one_seed, one_batch_size, all_failed, half_finished, not_finite, lambda: study([])])
def test_an_insufficient_study_says_what_is_missing(made: Callable[[], Study]) -> None:
    for claim in judge_claims(made()):
        if claim.id in ("updates", "memory"):  # counted: one seed is enough
            continue
        assert claim.verdict in (Verdict.NOT_TESTED, Verdict.INCONCLUSIVE), f"{claim.id}: {claim.why}"
        assert claim.why
        assert bool(claim.command) == (claim.verdict is Verdict.NOT_TESTED)


def test_every_command_that_would_test_a_claim_composes_into_the_same_study() -> None:
    mine = study(
        [run(32, 0, requested={"lr": 0.05, "target.value": 0.3, "model.width": 64, "optimizer._target_": SGD})]
    )
    composed = {}

    for claim in judge_claims(mine):
        name = claim.id
        batchlab, sweep, *overrides = shlex.split(claim.command)
        assert (batchlab, sweep) == ("batchlab", "sweep")
        with grid_composer(overrides) as composer:
            points, _ = composer.grid(overrides)
        configs = composed[name] = [point.config for point in points]
        assert {config.study for config in configs} == {"fabricated"}, name
        assert len({config.seed for config in configs}) == 5
        assert all(config.batch_size <= N_TRAIN for config in configs)
        if name not in ("lr-scaling", "small-lr", "domain"):
            assert {config.lr for config in configs} == {0.05}
        if name not in ("model-size", "domain"):
            assert {config.model["width"] for config in configs} == {64}
    (texts,) = {config.data["_target_"] for config in composed["domain"]}
    assert texts == "batchlab.data.text.load"


def test_a_claim_is_tested_on_a_task_that_has_its_option_if_the_studys_task_lacks_it() -> None:
    text = {"data._target_": "batchlab.data.text.load", "data.context": 32, "model._target_": "batchlab.models.gpt.GPT"}
    mine = study([run(32, 0, requested={**text, "data.train_size": 100, "model.width": 32})])

    commands = {claim.id: claim.command.split() for claim in judge_claims(mine)}

    assert {"data=digits", "model=mlp", "data.label_noise=0.1"} <= set(commands["memorisation"])
    assert not [argument for argument in commands["memorisation"] if "context" in argument]
    assert {"data=text", "model=gpt", "data.context=32"} <= set(commands["model-size"])


def test_a_users_own_task_is_in_the_command_without_a_group() -> None:
    own = {"data._target_": "my_data.load", "data.n": 9, "model._target_": "my_net.Net"}
    row = run(32, 0, requested=own)
    mine = study([row])
    mine.requested.drop(columns=["data.train_size", "data.label_noise"], inplace=True)

    claims = {claim.id: claim for claim in judge_claims(mine)}
    arguments = claims["warmup"].command.split()

    assert {"data._target_=my_data.load", "data.n=9", "model._target_=my_net.Net"} <= set(arguments)
    assert not {argument for argument in arguments if argument.startswith(("data=", "model="))}
    assert "must accept" not in claims["warmup"].why
    assert "; your own data set or model must accept data.label_noise" in claims["memorisation"].why
    assert {"data=text", "data.train_size=4000", "model=gpt"} <= set(claims["domain"].command.split())
    assert "must accept" not in claims["domain"].why


def test_a_hostile_name_stays_one_argument_of_the_command() -> None:
    hostile = "x'; rm -rf ~; echo $(id)"
    mine = study([run(32, 0, requested={"data._target_": "my.load", "data.path": hostile})])

    arguments = shlex.split(judge_claims(mine)[0].command)

    assert [argument for argument in arguments if "rm" in argument] == ["data.path='x\\'; rm -rf ~; echo $(id)'"]


def test_points_that_shared_the_machine_have_no_times() -> None:
    shared = [run(b, s, train_seconds=100.0 / b, shared_machine=True) for b in (8, 32) for s in range(5)]

    claim = judged(study(shared), "epoch-time")

    assert claim.verdict is Verdict.NOT_TESTED
    assert "shared the machine" in claim.why


def test_a_claim_with_two_parts_needs_both() -> None:
    # Less memory, but a loss that is not shown to be the same.
    claim = judged(PLANTS["accumulation"](0), "accumulation")

    assert claim.verdict is Verdict.INCONCLUSIVE
    assert "second part" in claim.why


def test_evidence_names_its_runs_and_how_their_learning_rate_was_set() -> None:
    mine = study(
        [
            run(b, s, {"val/loss": 0.3 + 0.01 * (lr - 0.02) ** 2 + b / 1e4 + s / 1e3}, requested={"lr": lr})
            for b in (8, 32, 128)
            for s in range(3)
            for lr in (0.01, 0.02, 0.04)
        ]
    )

    claim = judged(mine, "generalisation")

    (end, *_) = claim.evidence
    assert str(end.rate) == "tuned over 3 values"
    assert end.held_equal == "equal examples"
    assert len(end.runs) == 9
    assert set(mine.runs.loc[list(end.runs), "lr"]) == {0.02}


def test_a_masked_password_and_control_characters_are_not_in_a_command() -> None:
    odd = {"data._target_": "my.load", "data.token": "***", "data.path": "\x1b[2J", "data.rows": 9}

    command = judge_claims(study([run(32, 0, requested=odd)]))[0].command

    assert "data.rows=9" in command
    assert "token" not in command
    assert "data.path" not in command


def test_fair_comparisons_that_disagree_are_mixed() -> None:
    # At equal steps the larger batch is ahead, at equal examples the smaller one.
    def losses(b: int, s: int) -> list[tuple[int, float]]:
        at_twenty, at_end = 2.0 * (8 / b) ** 0.3, 0.2 * (b / 8) ** 0.2
        return [(20, at_twenty * wiggle(1, b, s)), (28_672 // b, at_end * wiggle(1, b, s))]

    runs = [run(b, s, curve={"val/loss": losses(b, s)}) for b in (8, 32, 128, 512) for s in range(6)]

    claim = judged(study([*runs]), "generalisation")

    assert claim.verdict is Verdict.MIXED
    assert {e.held_equal: e.effect.interval.value > 0 for e in claim.evidence} == {
        "equal examples": True,
        "equal steps": False,
    }


def test_a_run_that_never_reached_the_target_counts_with_at_least_what_it_trained() -> None:
    runs = [run(b, s, **reached(100 + 800 / b + s, b)) for b in (8, 32, 128) for s in range(4)]
    runs += [run(512, s, **(reached(50, 512) if s else missed())) for s in range(4)]

    early, steps = judged(study(runs), "early-progress"), judged(study(runs), "steps-to-target")

    (examples,) = early.evidence
    assert len(examples.runs) == 16  # the bound counts only against the opposite claim
    assert "512" in early.why
    assert "over 8, 32, 128" in steps.evidence[0].what
    for evidence in steps.evidence:
        assert set(study(runs).runs.loc[list(evidence.runs), "batch_size"]) == {8, 32, 128}
